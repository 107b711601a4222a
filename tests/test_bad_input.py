"""Bad input through the command line: a bad slide fails alone and says why, a bad table stops all before it starts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

ROBUSTNESS = Path(__file__).parent / "robustness"
NAMES = ["DAPI", "CK", "Vimentin", "CD45"]
HEADER = "slide,patient_id,sample_date,blood_volume_ml"
GOOD = ("good1", "good2")
# What becomes of each bad slide: a word that its reason must hold, in any case.
FAILS = {
    "half": "damaged|incomplete|missing|short",
    "tail": "damaged|incomplete|missing|short|end",
    "offsets": "chunk|damaged|incomplete|missing|offset|tile",
    "flipped": "damaged|decod",
    "picture": "TIFF|picture|format",
    "empty": "empty",
    "words": "TIFF|format|damaged",
    "channel": "CD45",
    "holes": "finite|NaN",
    "entities": "XML",
    "leaving": "XML|outside|folder",
    "unit": "pixel size|µm|unit",
    "absent": "no such",
}
DOUBTFUL = {
    "black": "constant|black|empty|dark|no cells|no signal",
    "saturated": "saturat|constant|no signal",
    "swapped": "swap|stain|CD45|CK|channel",
}


@pytest.fixture(scope="session")
def runs():
    """Return what the proofs share."""
    sys.path.insert(0, str(ROBUSTNESS))
    try:
        import runs
    finally:
        sys.path.remove(str(ROBUSTNESS))
    return runs


@pytest.fixture(scope="session")
def slides(tmp_path_factory, runs) -> Path:
    """Simulate two good slides and damage copies of the first in every way."""
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(GOOD, start=1):
        size = ["--shape", "384,384", "--leukocytes", "80", "--ctc", "3", "--seed", str(seed)]
        subprocess.run([*runs.COMMAND, "simulate", "slide", "--out", folder / name, *size], check=True)
        (folder / name / "slide.ome.tif").rename(folder / f"{name}.ome.tif")
    damage(folder, (folder / "good1.ome.tif").read_bytes(), tifffile.imread(folder / "good1.ome.tif"))
    return folder


def damage(folder: Path, raw: bytes, pixels: np.ndarray) -> None:
    (folder / "renamed.dat").write_bytes(raw)
    (folder / "half.ome.tif").write_bytes(raw[: len(raw) // 2])
    (folder / "tail.ome.tif").write_bytes(raw[:-100])
    (folder / "empty.ome.tif").write_bytes(b"")
    (folder / "words.tif").write_text("these are words, not pixels\n" * 100)
    (folder / "picture.tif").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(1000))
    tiled = {"tile": (128, 128), "compression": "zlib"}
    write(folder / "tiled.tif", pixels, **tiled)
    with tifffile.TiffFile(folder / "tiled.tif") as tif:
        page = tif.pages[2]
        offsets, tile = page.tags["TileOffsets"].valueoffset, page.dataoffsets[4] + page.databytecounts[4] // 2
        width = page.tags["TileOffsets"].valuebytecount
    whole = (folder / "tiled.tif").read_bytes()
    (folder / "tiled.tif").unlink()
    (folder / "offsets.ome.tif").write_bytes(whole[:offsets] + bytes(width) + whole[offsets + width :])
    (folder / "flipped.ome.tif").write_bytes(whole[:tile] + bytes([whole[tile] ^ 255]) + whole[tile + 1 :])
    write(folder / "channel.ome.tif", pixels[:3], names=NAMES[:3])
    holes = pixels.astype(np.float32)
    holes[1, 100:110, 100:110] = np.nan
    write(folder / "holes.ome.tif", holes)
    write(folder / "black.ome.tif", np.zeros_like(pixels))
    write(folder / "saturated.ome.tif", np.full_like(pixels, np.iinfo(pixels.dtype).max))
    write(folder / "swapped.ome.tif", pixels[[0, 3, 2, 1]])
    write(folder / "unit.ome.tif", pixels, unit="mm")
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol" * 10}">' for i in range(12))
    described(folder / "entities.ome.tif", pixels, lambda xml: with_entities(xml, entities))
    (folder.parent / "outside").mkdir(exist_ok=True)
    write(folder.parent / "outside" / "secret.ome.tif", pixels)
    described(folder / "leaving.ome.tif", pixels, pointing_outside)


def write(path: Path, pixels: np.ndarray, names=NAMES, unit="µm", **options) -> None:
    scale = {f"PhysicalSize{axis}{end}": value for axis in "XY" for end, value in (("", 0.5), ("Unit", unit))}
    metadata = {"axes": "CYX", "Channel": {"Name": names}, **scale}
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata, **options)


def described(path: Path, pixels: np.ndarray, change) -> None:
    """Write a slide whose OME-XML is changed by a function."""
    write(path, pixels)
    xml = change(tifffile.tiffcomment(path))
    with tifffile.TiffWriter(path) as writer:
        for index, plane in enumerate(pixels):
            text = xml.encode() if index == 0 else None
            writer.write(plane, contiguous=False, metadata=None, description=text, photometric="minisblack")


def with_entities(xml: str, entities: str) -> str:
    head, _, rest = xml.partition("?>")
    return f"{head}?><!DOCTYPE OME [{entities}]>{rest.replace('DAPI', '&e11;', 1)}"


def pointing_outside(xml: str) -> str:
    uuid = '<UUID FileName="../outside/secret.ome.tif">urn:uuid:00000001-aaaa-bbbb-cccc-dddddddddddd</UUID>'
    data = "".join(f'<TiffData IFD="{c}" PlaneCount="1" FirstC="{c}">{uuid}</TiffData>' for c in range(4))
    return re.sub(r"<TiffData.*(?=</Pixels>)", data, xml, flags=re.DOTALL)


def write_cohort(path: Path, slides: Path, names) -> Path:
    lines = [f"{HEADER},slide_id"]
    for index, name in enumerate(names):
        found = next(iter(slides.glob(f"{name}.*")), slides / f"{name}.ome.tif")
        lines.append(f"{found},P{index},2024-01-01,7.5,{name}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def start(runs, cohort: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*runs.COMMAND, "run", cohort, "--out", out, "--workers", "2", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def good(tmp_path_factory, runs, slides):
    """Run the good slides alone."""
    folder = tmp_path_factory.mktemp("good")
    ended = start(runs, write_cohort(folder / "cohort.csv", slides, GOOD), folder / "run")
    assert ended.returncode == 0, ended.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def mixed(tmp_path_factory, runs, slides):
    """Run good and bad slides together, from a table saved with semicolons, decimal commas and a BOM."""
    folder = tmp_path_factory.mktemp("mixed")
    names = [GOOD[0], *FAILS, *DOUBTFUL, "renamed", GOOD[1]]
    cohort = write_cohort(folder / "cohort.csv", slides, names)
    text = cohort.read_text(encoding="utf-8").replace(",", ";").replace("7.5", "7,5")
    cohort.write_text(f"\ufeff{text}", encoding="utf-8")
    ended = start(runs, cohort, folder / "run")
    table = pd.read_csv(folder / "run" / "slides.csv").set_index("slide_id")
    return folder / "run", ended, table


def test_bad_slides_make_exit_1_and_one_line_each(mixed, runs):
    _, ended, _ = mixed
    assert ended.returncode == 1, ended.stderr
    assert runs.complaints(ended.returncode, ended.stderr) == []
    said = [line.split(" failed: ")[0].split()[-1] for line in ended.stderr.splitlines() if " failed: " in line]
    assert set(FAILS) <= set(said) <= {*FAILS, *DOUBTFUL}


@pytest.mark.parametrize("name", FAILS)
def test_a_bad_slide_fails_with_file_fault_and_remedy(mixed, name):
    run, _, table = mixed
    reason = table.loc[name, "reason"]
    assert table.loc[name, "state"] == "failed"
    check_reason(reason, name, FAILS[name])
    assert not table.loc[name, "assessable"]
    assert np.isnan(table.loc[name, "ctc"])
    assert not (run / "slides" / name).exists()


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_slide_is_never_a_negative_one(mixed, name):
    _, _, table = mixed
    row = table.loc[name]
    assert not row["assessable"]
    assert np.isnan(row["ctc"])
    if row["state"] == "failed":
        check_reason(row["reason"], name, DOUBTFUL[name])
    else:
        assert re.search(DOUBTFUL[name], row["quality_reasons"], re.IGNORECASE)


def check_reason(reason: str, name: str, words: str) -> None:
    file, _, rest = reason.partition(": ")
    assert Path(file).name.startswith(f"{name}.")
    assert "; " in rest
    assert "\n" not in reason
    assert "secret" not in reason
    assert re.search(words, rest, re.IGNORECASE), reason


def test_good_slides_come_out_as_without_the_bad_ones(mixed, good, runs):
    run, _, table = mixed
    alone = pd.read_csv(good / "slides.csv").set_index("slide_id")
    for name in GOOD:
        cells = Path("slides") / name / "cells.parquet"
        assert runs.sha256(run / cells) == runs.sha256(good / cells)
        same = [column for column in alone if column not in ("patient_id", "sample_id", "quality_reasons")]
        pd.testing.assert_series_equal(table.loc[name, same], alone.loc[name, same], check_dtype=False)
    same = [(run / "slides" / name / "cells.parquet") for name in ("renamed", GOOD[0])]
    assert runs.sha256(same[0]) == runs.sha256(same[1])


def test_the_report_names_every_bad_slide(mixed):
    page = (mixed[0] / "report.html").read_text(encoding="utf-8")
    assert [name for name in FAILS if name not in page] == []


GOOD_ROW = "slides/a.ome.tif,P1,2024-01-01,7.5"
BAD_TABLES = {
    "a slide twice": ((HEADER, GOOD_ROW, GOOD_ROW), "row 3"),
    "an unknown kind": ((f"{HEADER},sample_kind", f"{GOOD_ROW},patent"), "sample_kind"),
    "an impossible date": ((HEADER, GOOD_ROW.replace("01-01", "02-30")), "2024-02-30"),
    "a date of another age": ((HEADER, GOOD_ROW.replace("2024", "0224")), "0224"),
    "a negative volume": ((HEADER, GOOD_ROW.replace("7.5", "-7.5")), "blood_volume_ml"),
    "no volume": ((HEADER, GOOD_ROW.replace("7.5", "")), "blood_volume_ml"),
    "an unknown panel": ((f"{HEADER},panel", f"{GOOD_ROW},emt-5"), "emt-5"),
    "an unknown column": ((f"{HEADER},colour", f"{GOOD_ROW},red"), "colour"),
    "a missing column": ((HEADER.removesuffix(",blood_volume_ml"), GOOD_ROW.removesuffix(",7.5")), "blood_volume_ml"),
    "a scale in metres": ((f"{HEADER},pixel_size_um", f"{GOOD_ROW},5e-7"), "pixel_size_um"),
    "an id that climbs": ((f"{HEADER},slide_id", f"{GOOD_ROW},../../x"), "slide_id"),
    "an id that is a place": ((f"{HEADER},slide_id", f"{GOOD_ROW},/tmp/x"), "slide_id"),
    "an id of dots": ((f"{HEADER},slide_id", f"{GOOD_ROW},.."), "slide_id"),
    "an id that is hidden": ((f"{HEADER},slide_id", f"{GOOD_ROW},.x"), "slide_id"),
    "an id of a device": ((f"{HEADER},slide_id", f"{GOOD_ROW},con"), "slide_id"),
    "no rows": ((HEADER,), "cohort.csv"),
    "no text": ((), "cohort.csv"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_stops_all_before_it_starts(fault, tmp_path, capfd):
    lines, named = BAD_TABLES[fault]
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    refused(capfd, named, tmp_path / "cohort.csv", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.csv"]


def refused(capfd, named: str, cohort: Path, out: Path, *options: str) -> None:
    from ctc_imaging.cli import main

    assert main(["run", str(cohort), "--out", str(out), *options]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"ctc-imaging: error: .+; .+\n", said.err), said.err
    assert named in said.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--panel", "emt-5"), "emt-5"),
        (("--model", "nobody"), "nobody"),
        (("--clinical", "nowhere.csv"), "nowhere.csv"),
        (("--schedule", "nowhere.yaml"), "nowhere.yaml"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--seed", "-1"), "seed"),
        (("--workers", "0"), "workers"),
    ],
)
def test_a_bad_option_stops_all_before_it_starts(options, named, tmp_path, capfd):
    (tmp_path / "cohort.csv").write_text(f"{HEADER}\n{GOOD_ROW}\n")
    refused(capfd, named, tmp_path / "cohort.csv", tmp_path / "run", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.csv"]


def test_a_table_that_is_not_utf8_is_refused(tmp_path, capfd):
    (tmp_path / "cohort.csv").write_bytes(f"{HEADER}\n{GOOD_ROW}\n".encode("utf-16"))
    refused(capfd, "cohort.csv", tmp_path / "cohort.csv", tmp_path / "run")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path, capfd):
    (tmp_path / "cohort.csv").write_text(f"{HEADER}\n{GOOD_ROW}\n")
    (tmp_path / "file").touch()
    refused(capfd, "file", tmp_path / "cohort.csv", tmp_path / "file" / "run")
    refused(capfd, "file", tmp_path / "cohort.csv", tmp_path / "file")
    if os.name == "posix" and os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        refused(capfd, "locked", tmp_path / "cohort.csv", tmp_path / "locked" / "run")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 1 MiB, or skip where that isn't allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if not sys.platform.startswith("linux") or not mount:
        pytest.skip("mounting a small disk needs Linux")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk isn't permitted here; test_faults fills one by other means")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_told_and_nothing_is_lost(small_disk, slides, good, runs, tmp_path):
    cohort = write_cohort(tmp_path / "cohort.csv", slides, GOOD)
    ended = start(runs, cohort, small_disk / "run")
    assert ended.returncode in (1, 2)
    assert runs.complaints(ended.returncode, ended.stderr) == []
    assert "space" in ended.stderr
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    again = start(runs, cohort, small_disk / "run")
    assert again.returncode == 0, again.stderr
    assert runs.results(small_disk / "run") == runs.results(good)


@pytest.mark.skipif(os.name != "posix", reason="interrupts a process by signal")
def test_ctrl_c_is_130_in_one_line(slides, runs, tmp_path):
    cohort = write_cohort(tmp_path / "cohort.csv", slides, GOOD)
    command = [*runs.COMMAND, "run", cohort, "--out", tmp_path / "run", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not any(state == "running" for state, _ in runs.slide_states(tmp_path / "run").values()):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert runs.complaints(130, said) == []
    assert said.splitlines()[-1].startswith("ctc-imaging: error: interrupted")
    assert runs.done(tmp_path / "run") == []
