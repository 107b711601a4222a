"""Files of mutations: what is read from each format, and what is refused, naming file, fault and remedy."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.clonality.genome import GRCH37, GRCH38, LENGTHS_BP, build_of_lengths, normal_name, site_of
from ctc_imaging.clonality.identity import check_identity, germline_rows, read_germline
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.read import read_frequencies, read_sequenced
from ctc_imaging.clonality.read_samples import check_patients, check_picked, read_samples, with_days
from ctc_imaging.clonality.segments import breakpoint_relatedness, read_segments, with_copies
from ctc_imaging.errors import TableError

MAF_HEADER = "Tumor_Sample_Barcode,Hugo_Symbol,Chromosome,Start_Position,Reference_Allele,Tumor_Seq_Allele2"
SAMPLES = "sample_id,patient_id,kind,day,cells,purity\nT,P1,primary,0,,0.6\nC,P1,ctc,30,1,\nR,P1,relapse,400,,0.5\n"
VCF_HEADER = "##fileformat=VCFv4.2\n##FILTER=<ID=weak,Description=w>\n##contig=<ID=chr1,length={length}>\n"
VCF_FORMAT = (
    "##FORMAT=<ID=GT,Number=1,Type=String,Description=g>\n##FORMAT=<ID=AD,Number=R,Type=Integer,Description=d>\n"
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def maf(folder: Path, *rows: str, header: str = MAF_HEADER, name: str = "calls.maf") -> Path:
    return write(folder, name, "\n".join([header, *rows]) + "\n")


def samples(folder: Path, text: str = SAMPLES) -> Path:
    return write(folder, "samples.csv", text)


def vcf(folder: Path, names: str, *records: str, name: str = "calls.vcf", length: int = 248956422) -> Path:
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t" + names.replace(" ", "\t")
    rows = [record.replace(" ", "\t") for record in records]
    return write(folder, name, VCF_HEADER.format(length=length) + VCF_FORMAT + "\n".join([columns, *rows]) + "\n")


def present(cohort, sample: str) -> dict[str, float]:
    own = cohort.calls[cohort.calls["sample_id"] == sample]
    return dict(zip(own["mutation"], own["present"], strict=True))


# --- names and builds


def test_one_mutation_has_one_name():
    names = ["chr1:158815481:C:T", "1 158815481 C T", "1_158815481_c_t", "CHR1:158815481_C>T"]
    assert {normal_name(name) for name in names} == {"1 158815481 C T"}
    assert site_of("1 158815481 C T") == ("1", 158815481)
    assert site_of("TP53 R249S") is None


@given(st.text(max_size=30))
def test_a_name_once_normal_stays(text):
    assert normal_name(normal_name(text)) == normal_name(text)


def test_the_build_shows_in_the_lengths_of_chromosomes():
    for build, lengths in LENGTHS_BP.items():
        assert build_of_lengths({f"chr{name}": length for name, length in lengths.items()}) == build
    assert build_of_lengths({"1": 1000}) is None


# --- MAF


def test_a_maf_is_read_with_comments_gzip_and_genes(tmp_path):
    text = f"#version 2.4\n{MAF_HEADER}\nT,TP53,17,7674216,C,A\nC,TP53,17,7674216,C,A\nT,ALB,4,73404300,G,-\n"
    path = tmp_path / "calls.maf.gz"
    path.write_bytes(gzip.compress(text.replace(",", "\t").encode()))
    cohort = read_sequenced(path, samples(tmp_path))
    assert present(cohort, "T") == {"17 7674216 C A": 1, "4 73404300 G -": 1}
    assert present(cohort, "C") == {"17 7674216 C A": 1, "4 73404300 G -": 0}
    assert cohort.genes["17 7674216 C A"] == "TP53"
    assert any("taken as having none: R" in note for note in cohort.notes)
    assert cohort.calls.set_index("sample_id")["purity"].to_dict()["T"] == 0.6


def test_the_peer_data_set_is_read_as_it_is(shared_data):
    folder = shared_data / "clonality_lcis"
    cohort = read_sequenced(folder / "lcis_maf.csv", kinds_needed=False)
    assert len(cohort.samples) == 34
    assert not cohort.kinds_known
    frequencies = read_frequencies(folder / "marginal_freq.csv")
    assert set(cohort.calls["mutation"]) <= set(frequencies.index)


def test_germline_rows_of_a_maf_are_left_out(tmp_path):
    rows = ("T,A,1,5,C,A,Somatic", "T,B,1,9,C,A,Germline")
    cohort = read_sequenced(maf(tmp_path, *rows, header=f"{MAF_HEADER},Mutation_Status"), samples(tmp_path))
    assert list(present(cohort, "T")) == ["1 5 C A"]
    assert any("aren't somatic" in note for note in cohort.notes)


@pytest.mark.parametrize(
    ("rows", "header", "fault"),
    [
        (["T,A,1,5,C,A", "T,A,1,5,C,A"], MAF_HEADER, "stands twice in sample T"),
        (["T,A,1,5,C,A", "T,A,1,5,C,G"], MAF_HEADER, "several alternative alleles in sample T"),
        (["T,A,1,five,C,A"], MAF_HEADER, "isn't a position"),
        (["T,A,1,,C,A"], MAF_HEADER, "the value is missing"),
        (["T,A,1,5,C,A,GRCh37", "T,B,1,6,C,A,hg38"], f"{MAF_HEADER},NCBI_Build", "rows are on GRCh37 and GRCh38"),
        (["T,A,1,5,C,A,mm10"], f"{MAF_HEADER},NCBI_Build", "isn't known"),
        (["T,A,21,48000000,C,A,hg38"], f"{MAF_HEADER},NCBI_Build", "lies beyond chromosome 21"),
        (["X,A,1,5,C,A"], MAF_HEADER, "sample X isn't in it"),
        ([], MAF_HEADER, "there are no mutations"),
    ],
)
def test_a_maf_that_contradicts_itself_is_refused(tmp_path, rows, header, fault):
    with pytest.raises(TableError, match=fault) as caught:
        read_sequenced(maf(tmp_path, *rows, header=header), samples(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "calls.maf.gz"
    path.write_bytes(gzip.compress(b"x" * 5000)[:20])
    with pytest.raises(TableError, match="can't be read"):
        read_sequenced(path, samples(tmp_path))


# --- plain tables


def test_a_table_with_reads_knows_what_it_does_not_know(tmp_path):
    text = "sample_id;mutation;ref_count;alt_count\nT;a;60;40\nT;b;100;1\nC;a;0;0\nR;a;50;9\n"
    cohort = read_sequenced(write(tmp_path, "calls.csv", text), samples(tmp_path))
    assert present(cohort, "T") == {"a": 1, "b": 0}
    assert np.isnan(present(cohort, "C")["a"])
    assert np.isnan(present(cohort, "R")["b"])
    assert any("Not known" in note for note in cohort.notes)


def test_a_table_that_only_lists_means_absent_by_leaving_out(tmp_path):
    cohort = read_sequenced(write(tmp_path, "c.csv", "sample_id,mutation\nT,a\nC,a\nR,b\n"), samples(tmp_path))
    assert present(cohort, "C") == {"a": 1, "b": 0}


def test_a_table_may_hold_what_the_samples_are(tmp_path):
    text = "sample,patient,kind,mutation,present\nT,P1,primary,a,1\nT,P1,primary,b,0\nC,P1,ctc,a,yes\nC,P1,ctc,b,\n"
    cohort = read_sequenced(write(tmp_path, "c.csv", text))
    assert cohort.samples == (Sample("P1", "T", "primary"), Sample("P1", "C", "ctc"))
    assert np.isnan(present(cohort, "C")["b"])


def test_pyclone_tables_are_read(shared_data, tmp_path):
    listed = "sample_id,patient_id,kind\nR1,CRUK0001,primary\nR2,CRUK0001,primary\nR3,CRUK0001,primary\n"
    path = shared_data / "clonality_pyclone" / "tracerx_cruk0001.tsv"
    calls = read_sequenced(path, samples(tmp_path, listed)).calls
    assert set(calls["sample_id"]) == {"R1", "R2", "R3"}
    assert calls[["ref_count", "alt_count", "major_cn", "minor_cn", "normal_cn", "purity"]].notna().mean().min() > 0.99


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sample_id,mutation,present\nT,a,maybe\n", "neither yes nor no"),
        ("sample_id,mutation,ref_count\nT,a,3\n", "only one of ref_count and alt_count"),
        ("sample_id,mutation,purity\nT,a,60\n", "isn't a share"),
        ("mutation\na\n", "no column sample_id"),
        ("sample_id\nT\n", "no column mutation"),
        ("sample_id,mutation,genome_build\nT,a,hg19\nT,b,hg38\n", "is on GRCh38"),
    ],
)
def test_a_table_without_meaning_is_refused(tmp_path, text, fault):
    with pytest.raises(TableError, match=fault):
        read_sequenced(write(tmp_path, "c.csv", text), samples(tmp_path))


def test_what_the_samples_are_must_be_told(tmp_path):
    path = write(tmp_path, "c.csv", "sample_id,patient_id,mutation\nT,P1,a\n")
    with pytest.raises(TableError, match=r"nothing says what sample T is.*--relatedness-only"):
        read_sequenced(path)
    cohort = read_sequenced(path, kinds_needed=False)
    assert cohort.samples[0].is_tumour
    assert any("taken as tissue" in note for note in cohort.notes)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sample_id,patient_id,kind\nT,P1,tumour\n", "'tumour' isn't known"),
        ("sample_id,patient_id,kind,cells\nC,P1,ctc,3\n", "a ctc is one cell"),
        ("sample_id,patient_id,kind\nT,P1,primary\nT,P1,relapse\n", "already in row 2"),
        ("sample_id,kind\nT,primary\n", "of which patient"),
    ],
)
def test_samples_without_meaning_are_refused(tmp_path, text, fault):
    path = samples(tmp_path, text)
    with pytest.raises(TableError, match=fault):
        read_sequenced(write(tmp_path, "c.csv", "sample_id,mutation\nT,a\n"), path)


# --- VCF


def test_a_vcf_is_read_with_genotypes_and_reads(tmp_path):
    pytest.importorskip("pysam")
    path = vcf(
        tmp_path,
        "T C R",
        "chr1 100 . C T . PASS . GT:AD 0/1:60,40 ./.:0,0 0/1:50,0",
        "chr1 200 . C T . weak . GT:AD 0/1:60,40 0/1:9,9 0/1:5,5",
        "chr1 300 . G A,<NON_REF> . . . GT:AD 0/0:60,0,0 0/1:9,9,0 0/1:5,5,0",
    )
    cohort = read_sequenced(path, samples(tmp_path))
    assert cohort.build == GRCH38
    assert present(cohort, "T") == {"1 100 C T": 1, "1 300 G A": 0}
    assert np.isnan(present(cohort, "C")["1 100 C T"])
    assert present(cohort, "R")["1 100 C T"] == 0  # 0/1 by a caller that looks at all samples, without a read
    assert any("1 records that failed" in note for note in cohort.notes)


def test_a_folder_of_vcfs_is_one_cohort(tmp_path):
    pytest.importorskip("pysam")
    folder = tmp_path / "calls"
    folder.mkdir()
    vcf(folder, "T", "chr1 100 . C T . PASS . GT 0/1", name="a.vcf")
    vcf(folder, "C", "chr1 300 . C T . PASS . GT 0/1", name="b.vcf")
    vcf(folder, "R", "chr1 300 . C T . PASS . GT 0/1", name="c.vcf")
    cohort = read_sequenced(folder, samples(tmp_path))
    assert present(cohort, "C") == {"1 100 C T": 0, "1 300 C T": 1}
    vcf(folder, "R2", "chr1 300 . C T . PASS . GT 0/1", name="d.vcf", length=249250621)
    with pytest.raises(TableError, match=rf"d\.vcf: is on {GRCH37}.*on {GRCH38}"):
        read_sequenced(folder, samples(tmp_path))


def test_bcf_is_read_as_vcf(tmp_path):
    pysam = pytest.importorskip("pysam")
    text = vcf(tmp_path, "T C R", "chr1 100 . C T . PASS . GT 0/1 0/0 0/1")
    binary = tmp_path / "calls.bcf"
    with pysam.VariantFile(str(text)) as source, pysam.VariantFile(str(binary), "wb", header=source.header) as target:
        for record in source:
            target.write(record)
    pd.testing.assert_frame_equal(
        read_sequenced(binary, samples(tmp_path)).calls, read_sequenced(text, samples(tmp_path)).calls
    )


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        (["chr1 100 . C T,G . PASS . GT 0/1 0/2 0/1"], "chr1:100: several alternative alleles.*bcftools norm"),
        (["chr1 100 . C T . PASS . GT 0/1 0/1 0/1"] * 2, "1 100 C T is there twice"),
        ([], "no mutations in it that passed"),
    ],
)
def test_a_vcf_that_cannot_be_meant_is_refused(tmp_path, records, fault):
    pytest.importorskip("pysam")
    with pytest.raises(TableError, match=fault):
        read_sequenced(vcf(tmp_path, "T C R", *records), samples(tmp_path))


def test_a_damaged_vcf_is_refused_in_one_line(tmp_path, capfd):
    pytest.importorskip("pysam")
    path = write(tmp_path, "calls.vcf", "not a VCF\n")
    with pytest.raises(TableError, match="can't be read as VCF"):
        read_sequenced(path, samples(tmp_path))
    assert capfd.readouterr().err == ""


# --- frequencies


def test_frequencies_are_shares(tmp_path):
    read = read_frequencies(write(tmp_path, "f.csv", "mutation,freq\nchr1:5:C:T,0.01\nTP53,0.3\n"))
    assert read.to_dict() == {"1 5 C T": 0.01, "TP53": 0.3}
    for text in ("mutation,freq\na,0\n", "mutation,freq\na,12\n", "mutation,freq\na,0.1\na,0.1\n", "mutation,freq\n"):
        with pytest.raises(TableError):
            read_frequencies(write(tmp_path, "f.csv", text))


# --- copy number


def test_segments_give_copies_to_the_mutations_in_them(tmp_path):
    header = "ID,chrom,loc.start,loc.end,seg.mean,major_cn,minor_cn"
    text = f"{header}\nT,chr1,1,500,0.5,2,1\nT,1,501,900,0,1,1\n".replace(",", "\t")
    segments = read_segments(write(tmp_path, "s.seg", text))
    calls = pd.DataFrame(
        {
            "sample_id": ["T", "T", "T", "C"],
            "mutation": ["1 200 C T", "1 700 C T", "2 200 C T", "1 200 C T"],
            "major_cn": [np.nan, 3.0, np.nan, np.nan],
            "minor_cn": np.nan,
        }
    )
    filled = with_copies(calls, segments)
    assert filled["major_cn"].fillna(-1).to_list() == [2, 3, -1, -1]
    assert filled["minor_cn"].fillna(-1).to_list() == [1, 1, -1, -1]


def test_overlapping_segments_are_refused(tmp_path):
    text = "ID,chrom,loc.start,loc.end,seg.mean\nT,1,1,500,0\nT,1,400,900,1\n"
    with pytest.raises(TableError, match="segments of sample T overlap at 1:400"):
        read_segments(write(tmp_path, "s.csv", text))


def test_shared_breakpoints_stand_out_against_chance(tmp_path):
    rng = np.random.default_rng(0)
    own = np.sort(rng.integers(5, 240, 12)) * 1_000_000
    other = np.sort(rng.integers(5, 240, 12)) * 1_000_000 + 500_000
    rows = ["ID,chrom,loc.start,loc.end,seg.mean"]
    for name, points in (("T", own), ("C", own + 200_000), ("R", other)):
        edges = [1, *np.unique(points), 248_000_000]
        rows += [f"{name},1,{a},{b - 1},{level % 2}" for level, (a, b) in enumerate(pairwise(edges))]
    listed = [Sample("P1", name, kind) for name, kind in (("T", "primary"), ("C", "ctc"), ("R", "relapse"))]
    pairs = breakpoint_relatedness(listed, read_segments(write(tmp_path, "s.csv", "\n".join(rows) + "\n")))
    p_values = {frozenset((row.sample_a, row.sample_b)): row.p_value for row in pairs.itertuples()}
    assert p_values[frozenset("TC")] < 0.01
    assert p_values[frozenset("TR")] > 0.05


# --- identity and picked cells


def germline(folder: Path, people: dict[str, int], sites: int = 60, drop_out: float = 0.3) -> Path:
    """Write calls at sites: `people` says whose genome each sample has; samples named c... are single cells."""
    genomes = np.random.default_rng(5).binomial(2, 0.4, (5, sites))
    rng = np.random.default_rng(6)
    rows = ["sample_id,site,genotype"]
    for name, person in people.items():
        for site, copies in enumerate(genomes[person]):
            alleles = [1] * copies + [0] * (2 - copies)
            kept = [a for a in alleles if not name.startswith("c") or rng.random() > drop_out]
            genotype = "" if not kept else f"{min(kept)}/{max(kept)}"
            rows.append(f"{name},s{site},{genotype}")
    return write(folder, "germline.csv", "\n".join(rows) + "\n")


PEOPLE = [
    *(Sample("P1", "g1", "germline"), Sample("P1", "t1", "primary"), Sample("P1", "c1", "ctc")),
    *(Sample("P2", "g2", "germline"), Sample("P2", "c2", "ctc")),
]


def test_germline_sites_may_be_places_with_reads(tmp_path):
    text = "sample_id,chromosome,position,ref,alt,ref_count,alt_count\ng1,chr1,55,C,T,20,0\nc1,1,55,C,T,0,0\n"
    sites, _ = read_germline(write(tmp_path, "g.csv", text))
    assert list(sites["site"]) == ["1 55 C T"] * 2
    assert sites[["ref_seen", "alt_seen"]].iloc[0].to_list() == [1, 0]
    assert sites[["ref_seen", "alt_seen"]].iloc[1].isna().all()


def test_drop_out_is_no_swap(tmp_path):
    path = germline(tmp_path, {"g1": 0, "t1": 0, "c1": 0, "g2": 1, "c2": 1})
    sites, build = read_germline(path)
    assert check_identity(PEOPLE, sites, path) == ()
    assert build is None


def test_swapped_samples_are_named_with_whom_they_fit(tmp_path):
    path = germline(tmp_path, {"g1": 0, "t1": 0, "c1": 1, "g2": 1, "c2": 0})
    with pytest.raises(TableError, match=r"germline\.csv: sample c1 isn't of patient P1 .*it fits P2.*swap"):
        check_identity(PEOPLE, read_germline(path)[0], path)


def test_few_sites_can_not_tell(tmp_path):
    path = germline(tmp_path, {"g1": 0, "t1": 0, "c1": 1, "g2": 1, "c2": 0}, sites=5)
    assert "Too few germline sites" in check_identity(PEOPLE, read_germline(path)[0], path)[0]


def test_cells_are_laid_beside_their_germline(tmp_path):
    rows = germline_rows(PEOPLE, read_germline(germline(tmp_path, {"g1": 0, "c1": 0}))[0])
    het = rows[(rows["sample_id"] == "c1") & (rows["genotype"] == "0/1")]
    assert len(het) > 10
    assert 0.1 < (het["present"] == 0).mean() < 0.5


@pytest.mark.parametrize(
    ("row", "fault"),
    [("C,P1,ctc,S9,1", "slide S9 of sample C isn't in it"), ("C,P1,ctc,S1,7", "slide S1 has no cell 7")],
)
def test_picked_cells_are_those_of_the_run(tmp_path, row, fault):
    facts = read_samples(samples(tmp_path, f"sample_id,patient_id,kind,slide_id,cell_id\n{row}\n"))
    with pytest.raises(TableError, match=fault):
        check_picked(facts, {"S1": {"1", "2"}}, tmp_path)


def test_patients_are_those_of_the_run_and_of_their_slides(tmp_path):
    facts = read_samples(samples(tmp_path, "sample_id,patient_id,kind,slide_id\nC,P1,ctc,S1\n"))
    check_patients(facts, {"P1"}, {"S1": "P1"}, tmp_path)
    with pytest.raises(TableError, match=r"patient P1 of sample C isn't in it.*pseudonym"):
        check_patients(facts, {"P2"}, {"S1": "P1"}, tmp_path)
    with pytest.raises(TableError, match="slide S1 is of patient P2"):
        check_patients(facts, {"P1", "P2"}, {"S1": "P2"}, tmp_path)


def test_days_follow_from_dates(tmp_path):
    rows = "T,P1,primary,2024-01-15,\nC,P1,ctc,,S1\nR,P2,relapse,2024-05-01,\n"
    text = f"sample_id,patient_id,kind,sample_date,slide_id\n{rows}"
    filled = with_days(read_samples(samples(tmp_path, text)), {"P1": "2024-01-15"}, {"S1": "2024-02-14"})
    assert [known.day for known in filled.values()] == [0, 30, None]
