"""Every command that a page shows is executed here, or named below with the test that does; every link holds."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml

from ctc_imaging.cli import main
from ctc_imaging.simulation import simulate_cohort, simulate_slide, write_slide

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = [ROOT / "docs" / "tutorials" / f"{user}.md" for user in ("technician", "pathologist", "researcher")]

COMMANDS = {"ctc-imaging", "make", "pip", "python", "napari", "dask", "chromium", "cp", "mv", "head"}
# Not executed here: why, and what executes them instead. Their options are held against --help all the same.
ELSEWHERE = {
    r"pip install .*": "installs; a clean clone's make does, and .ci/run with all extras",
    r"make .*": ".ci/run",
    r"napari": "tests/test_napari_review.py opens the window and the sample data",
    r"dask .*": "tests/test_cluster.py starts scheduler and workers by the same names",
    r"chromium .*": "needs a browser: benchmarks/report_pages.py opens the pages in one",
    r"ctc-imaging demo .*": ".ci/run",
    r"ctc-imaging review RUN --reader .*": "a window: tests/test_napari_review.py, tests/test_napari_reading.py",
    r"ctc-imaging review agreement RUN .*": "needs calls made in a window: tests/test_sign_off.py",
    r"ctc-imaging review share .*": "needs a server: tests/test_shared_record.py starts one",
    r"ctc-imaging run .* --scheduler .*": "needs a cluster: tests/test_cluster.py starts one",
    r"ctc-imaging run .* --model mine": "needs a trained model: tests/test_retraining.py makes and uses one",
    r"ctc-imaging retrain .*": "tests/test_retraining.py",
    r"ctc-imaging train-nuclei .*": "tests/test_nuclei_training.py",
    r"ctc-imaging segment IMAGE .*": "how it is called, no example: tests/test_segment_command.py",
    r"ctc-imaging clonality lcis_maf.csv .*": "data that aren't ours to copy: tests/test_clonality_command.py",
    r"python benchmarks/.*": "hours; the page shows what it printed",
}


class Command(NamedTuple):
    """One command of a page: its words as typed, what it is fed by a here-document, and its comment."""

    page: Path
    text: str
    fed: str
    comment: str

    @property
    def expected(self) -> int:
        """Exit code that the page promises."""
        told = re.search(r"exit code (\d+)", self.comment)
        return int(told[1]) if told else 0


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's blocks, lines that end in a backslash joined."""
    for fence in re.finditer(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        if fence[1] not in ("", "sh", "bash", "console"):
            continue
        lines = iter(fence[2].replace("\\\n", " ").splitlines())
        for line in lines:
            text, _, comment = line.partition("  #") if "  #" in line else line.partition(" # ")
            if not text.strip() or text.startswith("#") or not _is_command(text):
                continue
            fed = ""
            if "<<'END'" in text:
                fed = "\n".join(iter(lines.__next__, "END"))
            yield Command(page, " ".join(text.split()), fed, comment)


def _is_command(text: str) -> bool:
    return text.split()[0] in COMMANDS


def elsewhere(command: Command) -> str | None:
    """Say why a command isn't executed here; None where it is."""
    return next((why for form, why in ELSEWHERE.items() if re.fullmatch(form, command.text)), None)


def names_of(command: str) -> tuple[list[str], set[str]]:
    """Return the words that call a command, and the options it is given."""
    words = shlex.split(command.replace("[", " ").replace("]", " "))[1:]
    called = []
    for word in words:
        if word.startswith("-") or not re.fullmatch(r"[a-z][a-z-]+", word):
            break
        called.append(word)
    if called == ["review"]:
        called.append("open")
    return called, {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """Return a folder in which the three tutorials were followed, word for word and in their order."""
    folder = tmp_path_factory.mktemp("desk")
    for page in TUTORIALS:
        for command in commands(page):
            execute(command, folder)
    return folder


@pytest.fixture(scope="module")
def stage(desk, tmp_path_factory) -> Path:
    """Return a folder with what the examples of all other pages name."""
    folder = tmp_path_factory.mktemp("stage")
    for name in ("RUN", "run"):
        shutil.copytree(desk / "RUN", folder / name)
    simulate_cohort(folder / "sixty", patients=60, seed=5, tables_only=True)
    for run in (folder / "RUN", folder / "run"):
        shutil.copytree(folder / "sixty", run / "survival")
    _write_scans(folder)
    _write_measurements(folder)
    _write_sequencing(folder)
    cells = pd.read_parquet(next((desk / "RUN" / "slides").glob("*1m-1/cells.parquet")))
    slide = next((desk / "RUN" / "slides").glob("*1m-1")).name
    cells.head(3).assign(slide_id=slide)[["slide_id", "cell_id"]].to_csv(folder / "chosen.csv", index=False)
    return folder


def _write_scans(folder: Path) -> None:
    write_slide(simulate_slide((320, 320), ctc=2, leukocytes=30, seed=4), folder / "made")
    (folder / "slides").mkdir()
    shutil.copy(folder / "made" / "slide.ome.tif", folder / "slides" / "P01-day7.ome.tif")
    row = {"slide": "slides/P01-day7.ome.tif", "patient_id": "P01", "sample_date": "2026-01-14", "blood_volume_ml": 5}
    pd.DataFrame([row]).to_csv(folder / "cohort.csv", index=False)
    clinical = {"patient_id": "P01", "surgery_date": "2026-01-07", "last_contact_date": "2026-10-01"}
    pd.DataFrame([clinical | {"recurrence_date": None, "death_date": None}]).to_csv(
        folder / "clinical.csv", index=False
    )


def _write_measurements(folder: Path) -> None:
    """Write tables of sixty simulated patients with all column names that the pages use."""
    clinical = pd.read_csv(folder / "sixty" / "clinical.csv")
    dates = {name: pd.to_datetime(clinical[name]) for name in clinical if name.endswith("_date")}
    first = pd.concat([dates["recurrence_date"], dates["death_date"]], axis=1).min(axis=1)
    days = {name: (date - dates["surgery_date"]).dt.days for name, date in dates.items()}
    end = first.fillna(dates["last_contact_date"]).sub(dates["surgery_date"]).dt.days
    same = dict.fromkeys(("id", "patient", "patient_id"), clinical["patient_id"])
    number = clinical.index.to_series()
    patients = pd.DataFrame({**same, "end": end, "days": end, "relapse": first.notna().astype(int)}).assign(
        event=first.notna().astype(int), mvi=clinical["MVI"], afp=clinical["AFP"] + 1, size=clinical["size_cm"],
        arm=number % 2, age=50 + number % 23, tace_day=(14 + number % 20).where(number % 3 == 0),
        last_clear_scan=(days["recurrence_date"] - 60).clip(lower=1).fillna(end), relapse_scan=days["recurrence_date"],
    )  # fmt: skip
    patients.to_csv(folder / "patients.csv", index=False)
    counts = pd.read_csv(folder / "sixty" / "counts.csv").dropna(subset=["patient_id", "ctc"])
    visits = counts.merge(patients, on="patient_id").assign(volume_ml=lambda table: table["assessed_volume_ml"])
    surgery = visits["patient_id"].map(clinical.set_index("patient_id")["surgery_date"])
    visits["day"] = (pd.to_datetime(visits["sample_date"]) - pd.to_datetime(surgery)).dt.days
    visits["positive"] = (visits["ctc"] >= 2).astype(int)
    visits = visits.loc[
        visits["day"].between(0, visits["end"] - 1), ["id", "patient", "day", "ctc", "volume_ml", "positive"]
    ]
    for name in ("visits.csv", "counts.csv"):
        visits.to_csv(folder / name, index=False)


def _write_sequencing(folder: Path) -> None:
    """Write the simulated sequencing under the names of the pages: a MAF, and a folder with a VCF."""
    made = folder / "sequenced"
    simulate_cohort(made, patients=4, seed=3, tables_only=True, sequencing=True)
    shutil.copy(made / "frequencies.csv", folder / "freq.csv")
    samples, sites, calls = (pd.read_csv(made / f"{name}.csv") for name in ("samples", "germline", "mutations"))
    # One patient of theirs, who is the one of the run.
    patient = samples["patient_id"].iloc[0]
    samples, sites, calls = (
        table[table["sample_id"].str.startswith(f"{patient}-")].assign(
            sample_id=lambda own: own["sample_id"].str.replace(patient, "P001")
        )
        for table in (samples, sites, calls)
    )
    samples.assign(patient_id="P001").to_csv(folder / "samples.csv", index=False)
    sites.to_csv(folder / "sites.csv", index=False)
    place = calls["mutation"].str.split(" ", expand=True).set_axis(["chromosome", "position", "ref", "alt"], axis=1)
    calls = calls.join(place)
    maf = {
        "Hugo_Symbol": "gene", "NCBI_Build": "genome_build", "Chromosome": "chromosome", "Start_Position": "position",
        "Reference_Allele": "ref", "Tumor_Seq_Allele2": "alt", "Tumor_Sample_Barcode": "sample_id",
        "t_ref_count": "ref_count", "t_alt_count": "alt_count",
    }  # fmt: skip
    seen = calls[calls["alt_count"] >= 2]
    pd.DataFrame({name: seen[column] for name, column in maf.items()}).to_csv(
        folder / "calls.maf", sep="\t", index=False
    )
    (folder / "calls").mkdir()
    (folder / "calls" / "P001.vcf").write_text(_vcf(calls), encoding="utf-8")


def _vcf(calls: pd.DataFrame) -> str:
    samples = list(dict.fromkeys(calls["sample_id"]))
    heads = [
        "##fileformat=VCFv4.2",
        "##reference=GRCh38",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    ]
    heads += ['##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Reads">']
    heads += [f"##contig=<ID={name},length=248956422>" for name in sorted(set(calls["chromosome"]), key=int)]
    heads += ["\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples])]
    rows = []
    for _, site in calls.groupby("mutation"):
        one, reads = site.iloc[0], site.set_index("sample_id")[["ref_count", "alt_count"]].fillna(0).astype(int)
        told = [
            f"{'0/1' if alt >= 2 else '0/0'}:{ref},{alt}"
            for ref, alt in reads.reindex(samples, fill_value=0).to_numpy()
        ]
        rows.append([one["chromosome"], one["position"], ".", one["ref"], one["alt"], ".", "PASS", ".", "GT:AD", *told])
    rows.sort(key=lambda row: (int(row[0]), int(row[1])))
    return "\n".join([*heads, *("\t".join(row) for row in rows)]) + "\n"


def execute(command: Command, folder: Path) -> None:
    """Run a command in a folder as its page says, `ctc-imaging` in this process."""
    if elsewhere(command) is not None:
        return
    if not command.text.startswith("ctc-imaging"):
        script = command.text if not command.fed else f"{command.text}\n{command.fed}\nEND"
        done = subprocess.run(
            ["bash", "-ec", script.replace("python -", f"{shlex.quote(sys.executable)} -")], cwd=folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command.page.name}: {command.text}\n{done.stderr}"
        return
    words = shlex.split(command.text.replace("~/", f"{folder}/"))[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["ctc-imaging", *words])
        assert main(words) == command.expected, f"{command.page.name}: {command.text}"


@pytest.mark.pages
def test_the_tutorials_can_be_followed_word_for_word(desk):
    assert (desk / "RUN" / "report.html").is_file()
    assert (desk / "P001.svg").is_file()
    signed = pd.read_csv(desk / "RUN" / "sign_off.csv").set_index("sample_id")
    assert signed.loc["P001-1m", "signed_by"] == "A. Reader"


@pytest.mark.pages
@pytest.mark.parametrize("page", [page for page in PAGES if page not in TUTORIALS], ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page, request):
    """One after the other; what a page runs anew goes to a folder of its own, as there is a RUN already."""
    shown = [command for command in commands(page) if elsewhere(command) is None]
    if not shown:
        return
    stage = request.getfixturevalue("stage")
    for number, command in enumerate(shown):
        text = command.text
        if text.startswith("ctc-imaging run "):
            text = re.sub(r"--out (\S+)", rf"--out {page.stem}-{number}", text)
        # The pages' sample and slide S1 are the tutorial's.
        text = re.sub(r"\bS1 --reader", "P001-3m --reader", text).replace("--slide S1", "--slide P001-1m-1")
        execute(command._replace(text=text), stage)


def test_commands_that_are_executed_elsewhere_exist_with_their_options(capsys):
    for command in [command for page in PAGES for command in commands(page)]:
        if command.text.startswith("python benchmarks/"):
            script = (ROOT / command.text.split()[1]).read_text(encoding="utf-8")
            assert all(option in script for option in re.findall(r"--[a-z-]+", command.text)), command
        elif command.text.startswith("make "):
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
            assert command.text.split()[1] in targets, command
        elif command.text.startswith("ctc-imaging"):
            check_options(command.text, capsys)


def test_commands_within_sentences_exist_with_their_options(capsys):
    for page in [*PAGES, *sorted((ROOT / "models").rglob("CARD.md"))]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for shown in re.findall(r"`(ctc-imaging [^`]+)`", text):
            check_options(" ".join(shown.split()), capsys)


def check_options(text: str, capsys) -> None:
    called, options = names_of(text)
    assert main([*called, "--help"]) == 0, text
    told = capsys.readouterr().out
    assert all(re.search(rf"(^|\s|,|/){re.escape(option)}\b", told) for option in options - {"-"}), (text, options)


def test_every_reason_for_not_executing_a_command_is_needed_and_names_a_test_there_is():
    texts = [command.text for page in PAGES for command in commands(page)]
    for form, why in ELSEWHERE.items():
        assert any(re.fullmatch(form, text) for text in texts), form
        assert all((ROOT / name).exists() for name in re.findall(r"tests/\w+\.py|\.ci/run", why)), why


def test_every_test_that_a_requirement_names_exists():
    groups = yaml.safe_load((ROOT / "docs" / "requirements.yaml").read_text(encoding="utf-8"))
    rows = [row for group in groups for row in group["requirements"]]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["tests"], row["id"]
        for test in row["tests"]:
            file, _, name = test.partition("::")
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert not name or re.search(rf"^def {re.escape(name)}\(", text, re.M), test


def test_every_link_of_the_pages_leads_to_a_file():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not re.match(r"https?:|mailto:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
