"""The command clonality: files in, clonality.csv out; a fault is one line and exit code 2, with nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ctc_imaging.cli import main
from ctc_imaging.simulation import simulate_cohort

from .report_fixture import write_run

LOG_RATIOS = {"TK08": 45.029, "TK24": 153.386, "TK48": 117.314, "TK53": 2.98919}
"""Natural logarithms of the likelihood ratio, as quoted for this data set."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Return a small simulated cohort with sequencing."""
    out = tmp_path_factory.mktemp("cohort")
    simulate_cohort(out, patients=6, seed=1, tables_only=True, sequencing=True)
    return out


def arguments(cohort: Path, out: Path, *more: str) -> list[str]:
    tables = ["--frequencies", str(cohort / "frequencies.csv"), "--samples", str(cohort / "samples.csv")]
    return ["clonality", str(cohort / "mutations.csv"), *tables, "--out", str(out), *more]


def fails(capsys, *command: str) -> str:
    """Run a command that must fail, and return its one line."""
    assert main([*command]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_the_peer_data_set_gives_the_peers_likelihood_ratios(shared_data, tmp_path, capsys):
    folder = shared_data / "clonality_lcis"
    options = ["--frequencies", str(folder / "marginal_freq.csv"), "--out", str(tmp_path / "o"), "--relatedness-only"]
    assert main(["clonality", str(folder / "lcis_maf.csv"), *options]) == 0
    table = pd.read_csv(tmp_path / "o" / "clonality.csv").set_index("patient_id")
    assert len(table) == 17
    assert table.loc[list(LOG_RATIOS), "likelihood_ratio"].to_dict() == pytest.approx(LOG_RATIOS, abs=1e-3)
    assert (table["likelihood_ratio"] < 0.01).sum() == 6
    assert table.loc["TK53", "verdict"] == "cannot_tell"
    assert set(table["verdict"]) == {"common_origin", "unrelated", "cannot_tell"}
    assert table["verdict"].value_counts().to_dict() == {"common_origin": 10, "unrelated": 6, "cannot_tell": 1}
    assert "log likelihood ratio 45.029" in capsys.readouterr().out


def test_one_json_object_holds_everything(cohort, tmp_path, capsys):
    assert main(arguments(cohort, tmp_path, "--germline", str(cohort / "germline.csv"), "--json")) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts["simulated"] is True
    assert {Path(path).name for path in facts["files"]} >= {"clonality.csv", "clonality.json"}
    assert "SIMULATED" in captured.err
    assert "For research use only" in captured.err
    assert json.loads((tmp_path / "clonality.json").read_text(encoding="utf-8"))["patients"] == facts["patients"]
    assert list(tmp_path.glob("clonality-*.png"))


@pytest.mark.parametrize(
    ("option", "text", "fault"),
    [
        ("--frequencies", "mutation,freq\na,2\n", "isn't a frequency"),
        ("--samples", "sample_id,patient_id,kind\n", "isn't in it; list every sample"),
        ("--germline", "sample_id,site,genotype,genome_build\nP,s,0/0,hg19\n", "is on GRCh37"),
        ("--copy-number", "ID,chrom,loc.start,loc.end\nP,1,1,5\n", "there is no column log2_ratio"),
    ],
)
def test_a_fault_is_one_line_before_anything_is_written(cohort, tmp_path, capsys, option, text, fault):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(text, encoding="utf-8")
    line = fails(capsys, *arguments(cohort, tmp_path / "out", option, str(wrong)))
    assert fault in line
    assert str(wrong) in line
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(cohort, tmp_path, capsys):
    line = fails(capsys, "clonality", "none.maf", "--frequencies", "f.csv", "--out", str(tmp_path / "out"))
    assert "none.maf: no such file; check the path" in line


def test_a_swap_is_refused_with_the_sample_named(cohort, tmp_path, capsys):
    sites = pd.read_csv(cohort / "germline.csv", dtype=str)
    samples = pd.read_csv(cohort / "samples.csv", dtype=str)
    cells = samples[samples["kind"] == "ctc"].drop_duplicates("patient_id")["sample_id"].head(2).to_list()
    sites["sample_id"] = sites["sample_id"].replace({cells[0]: cells[1], cells[1]: cells[0]})
    sites.to_csv(tmp_path / "germline.csv", index=False)
    line = fails(capsys, *arguments(cohort, tmp_path / "out", "--germline", str(tmp_path / "germline.csv")))
    assert f"sample {cells[0]} isn't of patient" in line


def test_help_has_an_example(capsys):
    assert main(["clonality", "--help"]) == 0
    assert "Example: ctc-imaging clonality" in capsys.readouterr().out


# --- with a run


def of_run(folder: Path, patient: str, slide: str, cell: str) -> list[str]:
    """Write a patient's mutations and samples, one CTC picked from a cell of a slide."""
    folder.mkdir(parents=True, exist_ok=True)
    present = {"T": "111111110000", "C": "111101110000", "R": "111111111111"}
    rows = [f"{name},m{place},{value}" for name, values in present.items() for place, value in enumerate(values)]
    (folder / "m.csv").write_text("sample_id,mutation,present\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / "f.csv").write_text("mutation,freq\nm0,0.001\n", encoding="utf-8")
    kinds = [f"T,{patient},primary,,", f"C,{patient},ctc,{slide},{cell}", f"R,{patient},relapse,,"]
    header = "sample_id,patient_id,kind,slide_id,cell_id\n"
    (folder / "s.csv").write_text(header + "\n".join(kinds) + "\n", encoding="utf-8")
    files = ["--frequencies", str(folder / "f.csv"), "--samples", str(folder / "s.csv"), "--out", str(folder / "out")]
    return ["clonality", str(folder / "m.csv"), *files]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "night")


def test_a_picked_cell_takes_its_day_from_its_slide(run, tmp_path, capsys):
    slides = pd.read_csv(run / "slides.csv")
    slide = slides[(slides["state"] == "done") & (slides["patient_id"] == slides["patient_id"].iloc[-2])].iloc[0]
    cell = pd.read_parquet(run / "slides" / slide["slide_id"] / "cells.parquet")["cell_id"].iloc[0]
    command = of_run(tmp_path, slide["patient_id"], slide["slide_id"], str(cell))
    assert main([*command, "--run", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    ctc = next(s for s in facts["patients"][0]["samples"] if s["kind"] == "ctc")
    assert ctc["day"] is not None
    assert ctc["slide_id"] == slide["slide_id"]
    for name in ("clonality.csv", "clonality.json"):
        assert (run / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize(
    ("patient", "slide", "cell", "fault"),
    [
        ("NOBODY", None, "1", "patient NOBODY of sample T isn't in it"),
        (None, "no-such-slide", "1", "slide no-such-slide of sample C isn't in it"),
        (None, None, "999999", "has no cell 999999"),
    ],
)
def test_what_is_not_of_the_run_is_refused(run, tmp_path, capsys, patient, slide, cell, fault):
    slides = pd.read_csv(run / "slides.csv")
    own = slides[slides["state"] == "done"].iloc[-2]
    command = of_run(tmp_path, patient or own["patient_id"], slide or own["slide_id"], cell)
    assert fault in fails(capsys, *command, "--run", str(run))
    assert not (tmp_path / "out").exists()
