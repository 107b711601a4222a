"""From a cohort to verdicts: controls come out, the test goes before the tree, the truth of a simulation is met."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.clonality.controls import without_control_mutations
from ctc_imaging.clonality.identity import check_identity, read_germline
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.origin import WORDS, Origin
from ctc_imaging.clonality.output import clone_order, file_name, study_facts, write_study
from ctc_imaging.clonality.picture import draw_study, mutation_words, ordered_samples, sample_words
from ctc_imaging.clonality.read import Sequenced, read_frequencies, read_sequenced
from ctc_imaging.clonality.segments import Segments
from ctc_imaging.clonality.study import PAIR_COLUMNS, study_of
from ctc_imaging.clonality.verdicts import relation
from ctc_imaging.simulation import simulate_cohort

VERDICTS = {"shared_subclone", "common_origin", "unrelated", "cannot_tell"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Return a simulated cohort with sequencing and without pixels."""
    out = tmp_path_factory.mktemp("cohort")
    simulate_cohort(out, patients=14, seed=1, tables_only=True, sequencing=True)
    return out


@pytest.fixture(scope="module")
def study(cohort):
    read = read_sequenced(cohort / "mutations.csv", cohort / "samples.csv")
    sites, _ = read_germline(cohort / "germline.csv")
    return study_of(read, read_frequencies(cohort / "frequencies.csv"), germline=sites)


def small(**present: str) -> Sequenced:
    """Make one patient: a string of 1, 0 and ? a sample, one letter a mutation."""
    kinds = {"t": "primary", "c": "ctc", "r": "relapse", "w": "leukocyte", "g": "germline"}
    values = {"1": 1.0, "0": 0.0, "?": np.nan}
    samples = tuple(Sample("P1", name, kinds[name[0]]) for name in present)
    rows = [
        ("P1", name, f"m{place:02d}", values[letter])
        for name, letters in present.items()
        for place, letter in enumerate(letters)
    ]
    calls = pd.DataFrame(rows, columns=["patient_id", "sample_id", "mutation", "present"])
    for column in ("ref_count", "alt_count", "major_cn", "minor_cn", "normal_cn", "purity"):
        calls[column] = np.nan
    return Sequenced(samples, calls)


RARE = pd.Series({"m00": 0.001})


# --- controls


def test_what_leukocytes_carry_is_no_tumour_mutation():
    cleaned = without_control_mutations(small(t="1111", c="1101", w="0100", g="0001"))
    assert set(cleaned.calls["mutation"]) == {"m00", "m02"}
    assert cleaned.notes == ("P1: taken out because germline and leukocyte carry them too: m01, m03.",)


def test_without_controls_nothing_is_taken_out():
    cohort = small(t="11", c="10")
    assert without_control_mutations(cohort) is cohort


# --- test before tree


@pytest.mark.parametrize(
    ("pair", "kept", "verdict"),
    [
        ({"shared": 9, "private_a": 20, "private_b": 20, "p_value": 1e-12}, 1.0, "common_origin"),
        ({"shared": 0, "private_a": 20, "private_b": 20, "p_value": 1.0}, 1.0, "unrelated"),
        ({"shared": 0, "private_a": 2, "private_b": 3, "p_value": 1.0}, 1.0, "cannot_tell"),
        ({"shared": 0, "private_a": 9, "private_b": 9, "p_value": 1.0}, 0.5, "cannot_tell"),
        ({"shared": 1, "private_a": 20, "private_b": 20, "p_value": 0.03}, 1.0, "cannot_tell"),
        ({"shared": 1, "private_a": 22, "private_b": 16, "p_value": 0.02, "p_clonal": 0.58}, 1.0, "cannot_tell"),
        ({"shared": 2, "private_a": 22, "private_b": 16, "p_value": 0.02, "p_clonal": 0.97}, 1.0, "common_origin"),
        ({"shared": 0, "private_a": 22, "private_b": 16, "p_value": 1.0, "p_clonal": 0.01}, 1.0, "unrelated"),
        ({"shared": 0, "private_a": 1, "private_b": 1, "p_value": 1.0, "p_clonal": 0.01}, 1.0, "cannot_tell"),
        ({"shared": 0, "private_a": 0, "private_b": 0, "p_value": np.nan}, 1.0, "cannot_tell"),
    ],
)
def test_the_test_alone_says_what_it_can(pair, kept, verdict):
    assert relation({"p_clonal": np.nan, **pair}, kept) == verdict


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0, 1), st.floats(0.1, 1))
def test_fewer_alleles_kept_never_make_a_pair_unrelated(shared, private, p_value, kept):
    pair = {"shared": shared, "private_a": private, "private_b": 0, "p_value": p_value, "p_clonal": np.nan}
    if relation(pair, kept) == "unrelated":
        assert relation(pair, 1.0) == "unrelated"


def test_a_hotspot_alone_stays_unrelated_whatever_the_tree_says():
    common = pd.Series({"m00": 0.5, "other": 0.001})
    study = study_of(small(t="1" + "1" * 30 + "0" * 30, r="1" + "0" * 30 + "1" * 30), common)
    assert list(study.pairs["verdict"]) == ["unrelated"]


def test_without_a_primary_common_origin_is_not_claimed_beyond_the_test():
    study = study_of(small(c="1" * 20, r="1" * 20), RARE)
    assert list(study.pairs["verdict"]) == ["cannot_tell"]
    assert list(study_of(small(c="1" * 20, r="1" * 20), RARE, relatedness_only=True).pairs["verdict"]) == [
        "common_origin"
    ]


def test_a_patient_without_tumour_mutations_gets_a_note_and_no_error():
    study = study_of(small(t="11", c="11", w="11"), RARE)
    assert set(study.pairs["verdict"]) <= {"cannot_tell"}
    assert any("No tumour sample has a mutation" in note for note in study.patients[0].notes)


def test_breakpoints_speak_where_there_are_no_mutations():
    rng = np.random.default_rng(0)
    places = {str(chromosome): np.sort(rng.integers(2, 130, 5)) * 1_000_000 for chromosome in range(1, 6)}
    rows = [
        (name, chromosome, start, start + 500_000, float(level % 2))
        for name in "tc"
        for chromosome, starts in places.items()
        for level, start in enumerate(starts)
    ]
    table = pd.DataFrame(rows, columns=["sample_id", "chromosome", "start", "end", "level"])
    segments = Segments(table.assign(major_cn=np.nan, minor_cn=np.nan))
    study = study_of(small(t="1" * 9, c="?" * 9), RARE, segments=segments)
    assert len(study.breakpoints) == 1
    assert study.breakpoints["shared_breakpoints"].item() == 5 * 4
    assert list(study.pairs["verdict"]) == ["common_origin"]
    assert any("breakpoints alone" in note for note in study.patients[0].notes)


# --- a simulated cohort against its truth


def test_verdicts_meet_the_truth_of_the_simulation(cohort, study):
    truth = pd.read_csv(cohort / "truth" / "clonality_pairs.csv")
    both = study.pairs.merge(truth, on=["patient_id", "sample_a", "sample_b"], suffixes=("", "_true"))
    assert len(both) == len(study.pairs) == len(truth)
    told = both[both["verdict"] != "cannot_tell"]
    assert len(told) > 0.8 * len(both)
    assert (told["verdict"] == told["verdict_true"]).mean() > 0.97


def test_the_cohort_passes_the_check_of_identity_until_two_cells_are_swapped(cohort):
    samples = read_sequenced(cohort / "mutations.csv", cohort / "samples.csv").samples
    sites, build = read_germline(cohort / "germline.csv")
    assert build == "GRCh38"
    assert check_identity(samples, sites, cohort) == ()
    first, second = (next(s.sample_id for s in samples if s.patient_id == p and s.kind == "ctc") for p in _two(samples))
    swapped = sites.assign(sample_id=sites["sample_id"].replace({first: second, second: first}))
    with pytest.raises(Exception, match=f"sample {first} isn't of patient"):
        check_identity(samples, swapped, cohort)


def _two(samples) -> list[str]:
    return list(dict.fromkeys(sample.patient_id for sample in samples))[:2]


def test_simulated_data_say_so(study):
    assert study.simulated
    assert study_facts(study)["simulated"] is True


def test_the_same_seed_gives_the_same_study(cohort, study, tmp_path):
    simulate_cohort(tmp_path, patients=14, seed=1, tables_only=True, sequencing=True)
    for name in ("mutations.csv", "samples.csv", "germline.csv", "frequencies.csv", "cohort.csv", "clinical.csv"):
        assert (tmp_path / name).read_bytes() == (cohort / name).read_bytes()
    assert {path.name for path in (tmp_path / "truth").glob("clonality*")} == {
        "clonality.csv",
        "clonality_pairs.csv",
    }


def test_sequencing_changes_nothing_else_of_a_cohort(cohort, tmp_path):
    simulate_cohort(tmp_path, patients=14, seed=1, tables_only=True)
    for path in tmp_path.glob("*.csv"):
        assert path.read_bytes() == (cohort / path.name).read_bytes()
    assert not (tmp_path / "mutations.csv").exists()


def test_a_cohort_in_which_nobody_relapses_has_empty_tables(tmp_path):
    simulate_cohort(tmp_path, patients=1, seed=0, tables_only=True, sequencing=True)
    assert (tmp_path / "mutations.csv").read_text().startswith("sample_id,mutation,ref_count")


# --- output


def test_the_output_is_the_contracts(study, tmp_path):
    written = write_study(study, tmp_path / "a")
    assert [path.name for path in written[:2]] == ["clonality.csv", "clonality.json"]
    table = pd.read_csv(tmp_path / "a" / "clonality.csv")
    assert list(table) == list(PAIR_COLUMNS)
    assert set(table["verdict"]) <= VERDICTS == set(WORDS)
    assert np.isfinite(table["likelihood_ratio"]).all()
    facts = json.loads((tmp_path / "a" / "clonality.json").read_text(encoding="utf-8"))
    for patient in facts["patients"]:
        listed = [name for clone in patient["clones"] for name in clone["mutations"]]
        assert sorted(listed) == sorted(row["mutation"] for row in patient["mutations"])
        assert {row["sample_id"] for row in patient["ctcs"]} <= {s["sample_id"] for s in patient["samples"]}
    again = write_study(study, tmp_path / "b")
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_what_each_ctc_carries_of_the_relapse_is_counted(study):
    facts = study_facts(study)
    for patient in facts["patients"]:
        for row in patient["ctcs"]:
            assert 0 <= row["carried_beyond_trunk"] <= row["carried"] <= row["known"] <= row["relapse_mutations"]
            assert row["carried_beyond_trunk"] <= row["beyond_trunk"]


def test_a_patients_file_stays_in_its_folder():
    assert file_name("../../etc/x y") == "clonality-______etc_x_y"


def test_branches_stay_together_in_the_order_of_clones():
    clones = pd.DataFrame(
        {
            "clone": [0, 1, 2, 3, 4],
            "parent": pd.array([2, 2, pd.NA, 0, pd.NA], dtype="Int64"),
            "mutations": [("a",)] * 5,
            "trunk": [0.2, 0.1, 1.0, 0.0, 0.0],
            "support": 1.0,
            "placed": [True, True, True, True, False],
        }
    )
    origin = Origin(pd.DataFrame(), clones, pd.DataFrame(), 1.0)
    assert clone_order(origin) == [2, 0, 3, 1, 4]


# --- picture


def test_the_picture_names_what_it_shows(study):
    patient = study_facts(study)["patients"][0]
    figure = draw_study(patient, simulated=True)
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert any("SIMULATED" in text for text in texts)
    assert any(text.endswith(" trunk") for text in texts)
    assert sum(row["gene"] == "TERT" for row in patient["mutations"]) == 1
    assert any(text.startswith("TERT") for text in texts)


def test_thousands_of_mutations_are_drawn_without_their_names():
    names = [f"m{place}" for place in range(3000)]
    samples = [{"sample_id": name, "kind": kind, "day": None} for name, kind in (("T", "primary"), ("R", "relapse"))]
    patient = {
        "patient_id": "P1",
        "samples": samples,
        "mutations": [{"mutation": n, "gene": None, "clone": None, "calls": {"T": 1.0, "R": None}} for n in names],
        "clones": [],
        "pairs": [{"sample_a": "T", "sample_b": "R", "shared": 0, "private_a": 3000, "private_b": 0}],
        "tree_support": None,
    }
    figure = draw_study(patient)
    assert figure.get_size_inches()[1] < 12
    assert not any(label.get_text() in names for axes in figure.axes for label in axes.get_yticklabels())


def test_samples_read_from_primary_to_relapse():
    rows = [("r", "relapse", 300), ("c2", "ctc", 30), ("c1", "ctc", -2), ("t", "primary", 0), ("x", "ctc", None)]
    samples = [{"sample_id": name, "kind": kind, "day": day} for name, kind, day in rows]
    assert [sample["sample_id"] for sample in ordered_samples(samples)] == ["t", "c1", "c2", "x", "r"]
    assert sample_words({"sample_id": "P1-ctc-1", "day": -2}, "P1") == "ctc-1\nday −2"
    assert mutation_words({"mutation": "1 5 C " + "A" * 40, "gene": "ALB"}).startswith("ALB  1 5 C AAA")
