"""Privacy: under --pseudonymise nothing that is written tells a patient, and nothing else is changed by it."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging import pseudonyms as module
from ctc_imaging.cli import main
from ctc_imaging.config import Settings
from ctc_imaging.errors import ConfigError, CtcImagingError, RunError, TableError
from ctc_imaging.files import write_csv, write_json
from ctc_imaging.inputs import check_pseudonyms, load_inputs
from ctc_imaging.intake import take_in
from ctc_imaging.pseudonyms import Pseudonyms, check_distinct, load_key, make_key, make_scrubber
from ctc_imaging.recount import recount
from ctc_imaging.scrubbing import Scrubber
from ctc_imaging.slide import open_slide
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.verify import verify_run

FAKES = Path(__file__).parent / "fakes"
KEY = Pseudonyms(b"a key of sixteen bytes, or more")

# Each of these words must be nowhere in a RUN: station, folders, files, patients, samples, slides, a panel.
SECRETS = (
    *("Stationwolf", "Ordnerkrause", "Scanhuber", "Scanvogt", "Scanbraun", "Scanlehmann", "Scanfuchs"),
    *("Muelleranna", "Sørensen", "王小明", "19540317", "Tubequarz", "Glaskiesel", "Nurklinisch", "Panelbecker"),
)
# slide, patient, sample date, slide_id, sample_id, what is in the file
SLIDES = (
    ("Ordnerkrause/Scanhuber.tif", "Muelleranna", "2024-01-01", "Glaskiesel-1", "", "wait a"),
    ("Ordnerkrause/Scanvogt 2.tif", "Muelleranna", "2024-02-01", "", "", "wait broken"),
    ("Scanbraun.ome.tif", "Sørensen, 王小明", "2024-01-01", "", "Tubequarz", "wait b"),
    ("Scanlehmann.tif", "19540317", "2024-01-01", "Glaskiesel.2", "", "wait long"),
    ("Scanfuchs.tif", "7", "2024-01-01", "", "", "wait c"),
)


def write_cohort(folder: Path) -> Path:
    """Write a cohort in which everything names somebody."""
    rows = ["slide;patient_id;sample_date;slide_id;sample_id;blood_volume_ml;panel"]
    for slide, patient, date, slide_id, sample_id, text in SLIDES:
        (folder / slide).parent.mkdir(parents=True, exist_ok=True)
        (folder / slide).write_text(text)
        # A blank line: rows are counted as an editor does.
        rows += [f"{slide};{patient};{date};{slide_id};{sample_id};7.5;Panelbecker.yaml", ""]
    (folder / "cohort.csv").write_text("\n".join(rows))
    panel = (resources.files("ctc_imaging") / "panels" / "emt-4.yaml").read_text().replace("emt-4", "ours")
    (folder / "Panelbecker.yaml").write_text(panel)
    (folder / "clinical.csv").write_text(
        "patient_id;surgery_date;last_contact_date;recurrence_date;death_date;AFP;remark\n"
        "Muelleranna;2024-01-11;2026-01-01;;;7,5;sister of Nurklinisch\n"
        "19540317;2024-01-11;2026-01-01;2025-01-01;;12;\nNurklinisch;2024-01-11;2026-01-01;;;3;none\n"
    )
    (folder / "imaging.csv").write_text("patient_id,imaging_date,modality,result\nMuelleranna,2024-06-01,CT,negative\n")
    (folder / "markers.csv").write_text("patient_id,date,marker,value\nMuelleranna,2024-06-01,AFP,12.5\n")
    return folder / "cohort.csv"


@dataclass(frozen=True)
class Laboratory:
    """A folder with a cohort, and the runs made of it."""

    folder: Path

    @property
    def cohort(self) -> Path:
        return self.folder / "Stationwolf" / "cohort.csv"

    @property
    def key(self) -> Pseudonyms:
        return load_key(self.folder / "study.key")

    def run(self, name: str = "hidden") -> Path:
        return self.folder / name

    def arguments(self, *more: str, out: str = "hidden", key: str | None = "study.key") -> list[str]:
        """Return the arguments of the command."""
        tables = [f"--{name}={self.cohort.parent / name}.csv" for name in ("clinical", "imaging", "markers")]
        panel = ["--panel", str(self.cohort.parent / "Panelbecker.yaml")]
        pseudonymise = ["--pseudonymise", str(self.folder / key)] if key else []
        options = [*tables, *panel, *pseudonymise, "--workers", "2", *more]
        return ["run", str(self.cohort), "--out", str(self.run(out)), *options]


@contextmanager
def leaking() -> Iterator[None]:
    """Have the command `run` use the pipeline that tells all."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(FAKES)
        import fake_pipeline
        import leaky_pipeline

        from ctc_imaging import batch

        fake_pipeline.without_heavy_parts(patched)
        patched.setattr(batch, "run_cohort", partial(batch.run_cohort, process=leaky_pipeline.process))
        yield


@pytest.fixture
def leaky():
    with leaking():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Laboratory, str]:
    """Make a run with pseudonyms and one without; return also what the terminal got of the first."""
    laboratory = Laboratory(tmp_path_factory.mktemp("laboratory"))
    write_cohort(laboratory.cohort.parent)
    terminal = io.StringIO()
    with leaking():
        with redirect_stdout(terminal), redirect_stderr(terminal):
            assert main(laboratory.arguments()) == 1
        assert main(laboratory.arguments(out="plain", key=None)) == 1
    return laboratory, terminal.getvalue()


@pytest.fixture
def laboratory(made, leaky, tmp_path) -> Laboratory:
    """Return a laboratory of one's own with both runs."""
    shutil.copytree(made[0].folder, tmp_path / "laboratory")
    return Laboratory(tmp_path / "laboratory")


@pytest.fixture
def cohort(tmp_path) -> Path:
    return write_cohort(tmp_path / "Stationwolf")


def contents_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that lies in a folder: names, bytes, and what they hold compressed or in tables."""
    for path in sorted(folder.rglob("*")):
        where = path.relative_to(folder).as_posix()
        yield f"name of {where}", where.encode()
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield where, data
        for name, unpack in (("gzip", gzip.decompress), ("zlib", zlib.decompress)):
            try:
                yield f"{where} ({name})", unpack(data)
            except (OSError, zlib.error, EOFError):
                continue
        if path.suffix == ".parquet":
            yield f"{where} (table)", pd.read_parquet(path).to_csv().encode()
    with closing(sqlite3.connect(f"{(folder / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)) as ledger:
        yield "ledger (dump)", "\n".join(ledger.iterdump()).encode()


def spellings(word: str) -> set[bytes]:
    forms = {word, unicodedata.normalize("NFD", word), ascii(word)[1:-1]}
    return {form.lower().encode(encoding) for form in forms for encoding in ("utf-8", "utf-16-le")}


def leaks_in(folder: Path) -> list[tuple[str, str]]:
    """List which secret is where."""
    needles = [(secret, form) for secret in SECRETS for form in spellings(secret)]
    return [
        (secret, where)
        for where, data in contents_of(folder)
        for secret, form in needles
        if form in data.lower() or form in data.decode(errors="ignore").lower().encode()
    ]


def reasons_of(run: Path) -> dict[str, str]:
    with Ledger(run / "ledger.sqlite") as ledger:
        return {slide_id: state.reason for slide_id, state in ledger.slides().items()}


def test_the_search_finds_what_a_run_without_pseudonyms_tells(made):
    assert {secret for secret, _ in leaks_in(made[0].run("plain"))} == set(SECRETS)


def test_nothing_beneath_the_run_tells_a_patient(made):
    laboratory, terminal = made
    assert leaks_in(laboratory.run()) == []
    for secret in SECRETS:
        assert secret.lower() not in terminal.lower()


def test_a_slide_that_failed_is_found_by_its_row(made):
    laboratory, terminal = made
    broken = laboratory.key.slide("Scanvogt 2")
    assert f"slide {broken} (row 4 of the cohort table) failed: {broken}: damaged near the end of {broken}" in terminal
    assert reasons_of(laboratory.run())[broken].endswith(f"copy {broken} again")


def test_the_log_keeps_all_that_tells_nobody(made):
    laboratory, _ = made
    log = (laboratory.run() / "run.log").read_text()
    name = laboratory.key.slide("Glaskiesel-1")
    assert f"reading {name} of {laboratory.key.name('Ordnerkrause')}\n" in log
    assert f"'{name}': odd metadata" in log
    assert "Traceback" in log


def test_a_new_key_is_told_of(made):
    laboratory, terminal = made
    assert terminal.startswith(f"ctc-imaging: note: {laboratory.folder / 'study.key'} is a new key: keep it safe")


def test_a_run_says_that_it_is_pseudonymised_and_how_it_was_made(made):
    laboratory, _ = made
    facts = RunFolder(laboratory.run()).read()
    assert facts["pseudonymised"] is True
    assert facts["pseudonym_key"] == laboratory.key.fingerprint
    assert (facts["configuration"]["panel"], list(facts["panels"])) == ("ours", ["ours"])
    assert RunFolder(laboratory.run()).panel("ours").hash == facts["panel"]["hash"]
    assert RunFolder(laboratory.run("plain")).read()["pseudonymised"] is False


@pytest.mark.parametrize("name", ["slides", "counts"])
def test_the_figures_are_those_of_a_run_without_pseudonyms(made, name):
    laboratory, _ = made
    plain, hidden = (pd.read_csv(laboratory.run(run) / f"{name}.csv", dtype=str) for run in ("plain", "hidden"))
    ids = [column for column in ("slide_id", "sample_id", "patient_id") if column in plain]
    for column in ids:
        plain[column] = plain[column].map(getattr(laboratory.key, column.removesuffix("_id")))
    plain, hidden = (
        table.drop(columns=["reason", "quality_reasons"], errors="ignore").sort_values(ids[0], ignore_index=True)
        for table in (plain, hidden)
    )
    pd.testing.assert_frame_equal(plain, hidden)


def test_tables_keep_their_rows_and_covariates(made):
    laboratory, _ = made
    rows = pd.read_csv(laboratory.run() / "tables" / "cohort.csv", dtype=str)
    assert rows["patient_id"].tolist() == [laboratory.key.patient(patient) for _, patient, *_ in SLIDES]
    assert (rows["slide"] == rows["slide_id"]).all()
    clinical = pd.read_csv(laboratory.run() / "tables" / "clinical.csv", dtype=str)
    assert clinical["AFP"].tolist() == ["7.5", "12.0", "3.0"]
    assert clinical["remark"][0] == f"sister of {laboratory.key.patient('Nurklinisch')}"


def test_a_reason_cut_short_ends_before_a_name(made):
    laboratory, _ = made
    reason = reasons_of(laboratory.run())[laboratory.key.slide("Glaskiesel.2")]
    assert re.fullmatch(r"ValueError: x{468}…", reason)


def test_the_same_key_goes_on_and_computes_nothing_anew(laboratory, capsys):
    done = sorted(laboratory.run().glob("slides/*/cells.parquet"))
    before = [path.stat().st_ino for path in done]
    assert main(laboratory.arguments("--json")) == 1
    said = capsys.readouterr()
    assert [path.stat().st_ino for path in done] == before
    assert "new key" not in said.err
    assert sorted(json.loads(said.out)["rows"].values()) == [4, 8]
    assert leaks_in(laboratory.run()) == []


@pytest.mark.parametrize(
    ("out", "key", "said"),
    [
        ("hidden", "other.key", "made with another key; use another --out or the key it was made with"),
        ("hidden", None, "made with another key; use another --out or --pseudonymise"),
        ("plain", "study.key", "made without pseudonyms; use another --out"),
    ],
)
def test_a_folder_holds_pseudonyms_of_one_key_or_none(laboratory, capsys, out, key, said):
    make_key(laboratory.folder / "other.key")
    before = {path: path.read_bytes() for path in laboratory.run(out).rglob("*") if path.is_file()}
    for force in ((), ("--force",)):
        assert main(laboratory.arguments(*force, out=out, key=key)) == 2
        assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in laboratory.run(out).rglob("*") if path.is_file()} == before


def test_a_run_is_never_gone_on_with_under_a_new_key(laboratory, capsys):
    assert main(laboratory.arguments(key="stduy.key")) == 2
    assert "stduy.key: no such key file; give the one that" in capsys.readouterr().err
    assert not (laboratory.folder / "stduy.key").exists()


def test_a_run_that_lost_its_description_is_not_taken_for_an_unfinished_one(laboratory):
    run = RunFolder(laboratory.run("plain"))
    for path in (run.description, *run.path.glob("*.csv"), *run.path.glob("*.html")):
        path.unlink()
    with pytest.raises(RunError, match="nobody can tell how the run was made"):
        check_pseudonyms(run, laboratory.key)
    # Killed before it described itself, a run has no events yet.
    run.ledger.unlink()
    check_pseudonyms(run, None)
    assert run.log.exists()
    check_pseudonyms(run, laboratory.key)
    assert not [path for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_scan_changed_since_is_refused_by_its_row(laboratory, capsys):
    (laboratory.cohort.parent / "Scanbraun.ome.tif").write_text("other")
    assert main(laboratory.arguments()) == 2
    name = laboratory.key.slide("Scanbraun")
    assert f"{name} (row 6 of the cohort table): the scan has changed" in capsys.readouterr().err
    assert leaks_in(laboratory.run()) == []


@pytest.mark.skipif(os.name != "posix", reason="kills processes by signal")
def test_killed_and_resumed_leaves_no_trace(leaky, tmp_path):
    laboratory = Laboratory(tmp_path)
    write_cohort(laboratory.cohort.parent)
    command = [sys.executable, str(FAKES / "leaky_pipeline.py"), *laboratory.arguments()]
    process = subprocess.Popen(command, env={**os.environ, "FAKE_WAIT": "0.3"}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(laboratory.run().glob("slides/S-*/cells.parquet")):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert leaks_in(laboratory.run()) == []
    assert main(laboratory.arguments()) == 1
    assert leaks_in(laboratory.run()) == []
    assert len(list(laboratory.run().glob("slides/S-*/cells.parquet"))) == 3


@pytest.mark.parametrize("column", ["Name", "date of birth", "NHS-Number", "姓名", "Geburtsdatum", "hospital_no"])
def test_a_column_that_names_patients_is_refused(cohort, column):
    clinical = cohort.parent / "clinical.csv"
    clinical.write_text(clinical.read_text().replace("remark", column))
    load_inputs(cohort, Settings(), clinical)
    with pytest.raises(TableError, match=f"clinical.csv, column {column}: it would carry into the run who"):
        load_inputs(cohort, Settings(), clinical, pseudonyms=KEY)


def test_a_column_that_repeats_the_ids_is_refused(cohort):
    clinical = cohort.parent / "clinical.csv"
    header = "patient_id,surgery_date,last_contact_date,recurrence_date,death_date,study_code\n"
    clinical.write_text(header + "0012,2024-01-11,2026-01-01,,,12\n0013,2024-01-11,2026-01-01,,,13\n")
    with pytest.raises(TableError, match="column study_code"):
        load_inputs(cohort, Settings(), clinical, pseudonyms=KEY)


def test_rescans_still_name_their_scan_and_patients_are_found_inside_other_columns(tmp_path):
    (tmp_path / "cohort.csv").write_text(
        "slide,slide_id,patient_id,sample_date,blood_volume_ml,rescan_of,batch,site\n"
        "a.tif,A1,Miller,2024-01-01,5,,night of Miller,Bonn\nb.tif,A2,Miller,2024-01-01,5,A1,2024-01,Bonn\n"
    )
    first, second = load_inputs(tmp_path / "cohort.csv", Settings(), pseudonyms=KEY).entries
    assert second.rescan_of == first.slide_id == KEY.slide("A1")
    assert (first.sample_id, second.sample_id) == (KEY.sample("Miller_2024-01-01"),) * 2
    assert (first.batch, second.batch, first.site) == (f"night of {KEY.patient('Miller')}", "2024-01", "Bonn")
    assert first.slide == tmp_path / "a.tif"


def test_two_ids_with_one_pseudonym_are_refused(monkeypatch):
    check_distinct(map(str, range(2000)), KEY.patient, Path("cohort.csv"))
    monkeypatch.setattr(module, "_LENGTH", 1)
    with pytest.raises(TableError, match="the same pseudonym by chance; use another key"):
        check_distinct(map(str, range(40)), KEY.patient, Path("cohort.csv"))


@given(st.text(min_size=1), st.text(min_size=1), st.binary(min_size=16))
def test_a_pseudonym_depends_on_id_kind_and_key_alone(one, other, secret):
    key = Pseudonyms(secret)
    assert re.fullmatch(r"P-[A-Z2-7]{10}", key.patient(one))
    assert (key.patient(one) == Pseudonyms(secret).patient(other)) == (one == other)
    words = {key.patient(one), key.sample(one), key.slide(one), key.name(one), KEY.patient(one)}
    assert len({word[2:] for word in words}) == 5
    assert key.patient("") == ""
    assert repr(secret) not in repr(key)


def test_a_new_key_is_its_owners_alone_and_is_never_overwritten(tmp_path):
    make_key(tmp_path / "study.key")
    assert stat.S_IMODE((tmp_path / "study.key").stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", (tmp_path / "study.key").read_text())
    assert load_key(tmp_path / "study.key").fingerprint == load_key(tmp_path / "study.key").fingerprint
    with pytest.raises(ConfigError, match="File exists"):
        make_key(tmp_path / "study.key")


def test_white_space_around_a_key_changes_nothing(tmp_path):
    (tmp_path / "one").write_bytes(b"correct horse battery")
    (tmp_path / "two").write_bytes(b"\n correct horse battery\r\n")
    assert load_key(tmp_path / "one") == load_key(tmp_path / "two")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a key of 0 bytes can be guessed"),
        (b"too short\n\n\n\n\n\n\n", "a key of 9 bytes can be guessed"),
        (bytes(5000), "larger than 4096 bytes"),
    ],
)
def test_a_file_that_can_be_no_key_is_refused(tmp_path, content, said):
    (tmp_path / "study.key").write_bytes(content)
    with pytest.raises(ConfigError, match=f"study.key: {said}"):
        load_key(tmp_path / "study.key")


def test_a_key_in_the_wrong_place_is_refused_before_anything_is_made(leaky, tmp_path, capsys):
    laboratory = Laboratory(tmp_path)
    write_cohort(laboratory.cohort.parent)
    for key, said in (
        (".", "not a file"),
        ("hidden/study.key", "outside of the RUN folder"),
        ("no/key", "No such file"),
    ):
        assert main(laboratory.arguments(key=key)) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no such key file"):
        load_key(tmp_path / "study.key")
    assert [path.name for path in tmp_path.iterdir()] == ["Stationwolf"]


NAMES = Scrubber(
    {"Anna Müller": "P-A", "7": "P-7", "19540317": "P-N", "王伟": "P-W", "slide": "S-S", "scan_1": "S-1", "P1": "P-1"},
    {"/data/Müller/scan 1.tif": "S-1"},
)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("7 of 7 slides in 7.5 s, 3/7", "7 of 7 slides in 7.5 s, 3/7"),
        ("patient 7: sample '7' of /scans/7/x", "patient P-7: sample 'P-7' of /scans/P-7/x"),
        ("P12 and P1_2024-01-01, XP1", "P12 and P-1_2024-01-01, XP1"),
        ("MRN19540317, 0.19540317, 195403171", "MRNP-N, 0.19540317, 195403171"),
        ("患者王伟的", "患者P-W的"),
        ("anna  MÜLLER, Anna Mu\u0308ller, 'Anna M\\xfcller'", "P-A, P-A, 'P-A'"),
        ("file:///x/Anna%20M%C3%BCller.tif", "file:///x/P-A.tif"),
        ("the slide has no scale: /x/slide/y", "the slide has no scale: /x/S-S/y"),
        ("[Errno 2] No such file: '/data/Müller/scan 1.tif/Anna/0 1.tif'", "[Errno 2] No such file: 'S-1'"),
        ("/data/Müller/scan 1.tif: damaged; copy it again", "S-1: damaged; copy it again"),
        ("/data/Müller/scan 1.tiff", "/data/Müller/scan 1.tiff"),
        ("scan_1.tif, scan_12.tif", "S-1.tif, scan_12.tif"),
    ],
)
def test_names_are_replaced_as_whole_words(text, scrubbed):
    assert NAMES(text) == scrubbed


NAME = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="'\""), min_size=1, max_size=12)


@given(st.lists(NAME.filter(str.strip), min_size=1, max_size=5), st.text(max_size=20))
def test_no_quoted_name_survives_and_without_names_nothing_changes(names, other):
    scrub = Scrubber({name: f"P-{index}" for index, name in enumerate(names)})
    for name in names:
        assert f"'{name}'" not in scrub(f"FileNotFoundError: [Errno 2] No such file or directory: '{name}'")
    assert Scrubber()(other) == other


@given(st.integers(0, 99_999), st.floats(0, 1e6), st.dates(), st.sampled_from("0123456789"))
def test_short_ids_wreck_no_figure(count, seconds, date, short):
    scrub = Scrubber({short: "P-A", f"{short}{short}": "P-B", "mL": "P-C"})
    text = f"{count} cells, {count}/{count} tiles, {seconds:.1f} s, {date}, 7.5 mL, slide 2048 px"
    assert scrub(text) == text


def test_scans_in_object_storage_are_hidden_too(cohort):
    upath = pytest.importorskip("upath")
    entry = load_inputs(cohort, Settings()).entries[0]
    remote = replace(entry, slide=upath.UPath("memory://bucket/Ordnerkrause/Scanhuber.tif"))
    scrub = make_scrubber([remote], [entry.patient_id], KEY, [cohort])
    for text in ("memory://bucket/Ordnerkrause/Scanhuber.tif", "bucket/Ordnerkrause/Scanhuber.tif", "Scanhuber"):
        assert scrub(f"{text}: no such file") == f"{KEY.slide(entry.slide_id)}: no such file"
    assert "Ordnerkrause" not in scrub("no folder Ordnerkrause")


def test_errors_without_pseudonyms_go_through_as_they_are():
    error = TableError("cohort.csv", "a fault", "a remedy")
    with pytest.raises(TableError) as caught, Scrubber().errors({}):
        raise error
    assert caught.value is error


def test_errors_keep_their_kind_and_lose_the_names():
    scrub = Scrubber({"Miller": "P-M"}, {"/x/Miller.tif": "S-M"})
    with (
        pytest.raises(ConfigError, match=r"^S-M \(row 3 of the cohort table\): of P-M; ask P-M$"),
        scrub.errors({"S-M": 3}),
    ):
        raise ConfigError("/x/Miller.tif", "of Miller", "ask Miller")
    with pytest.raises(PermissionError) as caught, scrub.errors({}):
        raise PermissionError(13, "Permission denied", "/x/Miller.tif")
    assert caught.value.filename == "S-M"
    with pytest.raises(CtcImagingError), scrub.errors({}):
        raise RunError("/x", "a", "b")


def test_what_is_printed_goes_through_memory_alone(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    log = tmp_path / "run.log"
    with Scrubber({"Miller": "P-M"}).output(log) as output:
        with output.open("ab") as printed:
            printed.write(b"of Miller\n" * 20_000 + b"no end of Miller")
        assert [path.stat().st_size for path in (tmp_path / "temporary").rglob("*") if not path.is_dir()] == [0]
    assert log.read_text() == "of P-M\n" * 20_000 + "no end of P-M"
    assert not list((tmp_path / "temporary").iterdir())


def write_real_slides(folder: Path) -> Path:
    """Simulate two slides, whose metadata and files name their patient too."""
    import tifffile

    from ctc_imaging.simulation import simulate_slide

    pixels = simulate_slide((256, 256), 3, 15, seed=1).image
    (folder / "Scanhuber").mkdir(parents=True)
    names = ("DAPI", "CK", "VIM", "CD45")
    metadata = {"axes": "CYX", "Name": "Muelleranna", "Description": "Stationwolf", "Channel": {"Name": list(names)}}
    metadata |= {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "um" for axis in "XY"}
    tifffile.imwrite(folder / "Scanvogt.ome.tif", pixels, metadata=metadata, ome=True, software="Scanbraun")
    for name, plane in zip(names, pixels, strict=True):
        tifffile.imwrite(folder / "Scanhuber" / f"Muelleranna_{name}.tif", plane, description="Scanlehmann")
    (folder / "cohort.csv").write_text(
        "slide,patient_id,sample_date,blood_volume_ml,pixel_size_um\n"
        "Scanvogt.ome.tif,Muelleranna,2024-01-01,7.5,0.5\nScanhuber,Muelleranna,2024-02-01,7.5,0.5\n"
    )
    return folder / "cohort.csv"


def test_the_real_pipeline_and_report_tell_nothing_either(tmp_path):
    cohort = write_real_slides(tmp_path / "Stationwolf")
    run, key = tmp_path / "out", tmp_path / "study.key"
    assert main(["run", str(cohort), "--out", str(run), "--pseudonymise", str(key), "--workers", "1"]) == 0
    assert len(list(run.glob("slides/S-*/quality.json"))) == 2
    assert leaks_in(run) == []
    assert main(["counts", str(run)]) == main(["report", str(run)]) == 0
    assert load_key(key).patient("Muelleranna") in (run / "report.html").read_text()
    assert leaks_in(run) == []


@pytest.fixture(scope="module")
def without_paths(tmp_path_factory) -> RunFolder:
    """Make a run as --pseudonymise does, with pixels enough to review."""
    pytest.importorskip("napari")
    import numpy as np

    from ctc_imaging.quality import write_png

    from .napari_fixture import write_run

    run = write_run(tmp_path_factory.mktemp("reviewed"), ("S-ABCDEFGHIJ",), (300, 256))
    write_json(run.description, {**run.read(), "pseudonymised": True})
    write_csv(run.table("cohort"), pd.read_csv(run.table("cohort"), dtype=str).assign(slide="S-ABCDEFGHIJ"))
    verdict = {"assessable": True, "assessed_fraction": 1.0, "reasons": []}
    write_json(run.slide("S-ABCDEFGHIJ") / "quality.json", verdict)
    write_png(run.slide("S-ABCDEFGHIJ") / "overview.png", np.full((150, 128, 3), 90, np.uint8))
    return run


def test_a_review_opens_without_scans_and_says_why(without_paths):
    from napari.layers import Layer
    from napari_ctc.crops import CropSource
    from napari_ctc.layers import open_view, slide_layers
    from napari_ctc.queue import ReviewQueue

    view = open_view(without_paths, "S-ABCDEFGHIJ")
    assert view.scan is None
    assert view.fault == f"{without_paths.path}: pseudonymised, so it keeps no path to its scans"
    layers = {data[1]["name"]: Layer.create(*data) for data in slide_layers(without_paths, view)}
    assert list(layers) == ["Overview", "Nucleus outlines", "Cell outlines", "Cells"]
    # The small picture lies where the labels lie, to the edge of their outermost pixels.
    edges = [layers[name].extent.world + [[-0.5], [0.5]] * layers[name].scale for name in ("Overview", "Cell outlines")]
    assert edges[0] == pytest.approx(edges[1])
    assert CropSource(without_paths, view).pictures(*ReviewQueue(without_paths, "A").current[1:4])


def test_reviews_are_counted_without_scans(without_paths):
    from napari_ctc.queue import ReviewQueue

    queue = ReviewQueue(without_paths, "A")
    queue.call("leukocyte")
    queue.call("ctc", "hybrid")
    counts = recount(without_paths).counts
    assert counts["reviewed"].sum() == 2


def test_a_pseudonymised_run_verifies(made):
    assert verify_run(made[0].run()).faults == ()


def test_a_slide_under_way_tells_nothing(tmp_path):
    """Killed now, its folder stays until the run goes on."""
    cohort = write_real_slides(tmp_path / "Stationwolf")
    with open_slide(cohort.parent / "Scanvogt.ome.tif") as scan:
        take_in(scan, {"dapi": 0}, tmp_path / "copy")
    assert not [path for path in (tmp_path / "copy").iterdir() if b"Stationwolf" in path.read_bytes()]
