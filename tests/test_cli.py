"""The command line: exit codes, one line for what is wrong, one JSON object, and a quick --help."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

import ctc_imaging
from ctc_imaging import demo
from ctc_imaging.cli import app as app_module
from ctc_imaging.cli import main, options
from ctc_imaging.cli.app import subcommands
from ctc_imaging.cli.review import WINDOW
from ctc_imaging.errors import RunError

FAKES = Path(__file__).parent / "fakes"
HEAVY = ("numpy", "pandas", "torch", "matplotlib", "rich", "scipy", "cv2", "tifffile", "zarr", "lifelines")
COMMANDS = (
    "demo",
    "run",
    "counts",
    "report",
    "verify",
    "segment",
    "inspect",
    "models",
    "review",
    "review import",
    "review export",
    "simulate",
    "simulate slide",
    "simulate cohort",
)


@pytest.fixture(autouse=True)
def no_plug_ins(monkeypatch):
    """Test the core's own commands, whatever is installed beside it."""
    monkeypatch.setattr(app_module.metadata, "entry_points", lambda group: ())


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.syspath_prepend(FAKES)
    import fake_pipeline

    fake_pipeline.use_in_commands(monkeypatch)
    return fake_pipeline


def assert_one_line(captured, *said: str) -> None:
    assert captured.out == ""
    assert captured.err.startswith("ctc-imaging: error: ")
    assert captured.err.count("\n") == 1
    for words in said:
        assert words in captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    captured = capsys.readouterr()
    assert f"Example: ctc-imaging {command.split()[0]}" in captured.out
    assert captured.err == ""


def test_the_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS if " " not in command)


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ctc-imaging {ctc_imaging.__version__}\n"


def test_help_imports_nothing_heavy():
    asked = f"sys.exit(str(set({HEAVY}) & set(sys.modules)))"
    code = f"import sys; from ctc_imaging.cli import main; main(['--help']); {asked}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_help_answers_at_once():
    def seconds(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    answer = min(seconds("from ctc_imaging.cli import main; main(['--help'])") for _ in range(5))
    assert answer < min(seconds("pass") for _ in range(5)) + 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["sprint"], "No such command 'sprint'"),
        (["run"], "Missing argument 'COHORT.csv'; see ctc-imaging run --help"),
        (["run", "cohort.csv"], "Missing option '--out'"),
        (["run", "cohort.csv", "--oat", "x"], "No such option: --oat"),
        (["run", "cohort.csv", "--out", "x", "--workers", "many"], "--workers"),
        (["run", "none.csv", "--out", "x"], "none.csv: no such file"),
        (["run", "none.csv", "--out", "x", "--config", "none.yaml"], "none.yaml: no such file"),
        (["run", "none.csv", "--out", "x", "--seed", "-1"], "too small"),
        (["counts", "nowhere"], "nowhere: there is no run here"),
        (["report", "nowhere"], "nowhere"),
        (["review"], "Missing command"),
        (["review", "nowhere", "--reader", "A"], "pip install 'ctc-imaging[review]'"),
        (["review", "--reader", "A", "nowhere"], "pip install 'ctc-imaging[review]'"),
        (["review", "nowhere"], "Missing option '--reader'"),
        (["review", "import", "nowhere", "x.csv"], "there is no run here"),
        (["review", "export", "nowhere", "x.csv"], "nowhere"),
        (["segment", "none.png", "labels.png"], "name the file .tif"),
        (["segment", "none.png", "labels.tif"], "none.png: no such file"),
        (["inspect", "none.tif"], "none.tif"),
        (["inspect", "none.tif", "--panel", "none"], "no such panel"),
        (["simulate", "slide", "--out", "x", "--shape", "5"], "'5' isn't a shape"),
        (["simulate", "slide", "--out", "x", "--setting", "fog"], "fog"),
        (["simulate", "cohort", "--out", "x", "--patients", "0"], "use 1 or more"),
    ],
)
def test_bad_use_is_told_in_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert_one_line(capsys.readouterr(), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/run"),
            "/data/run: the disk is full; free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/data/run"), "check the permissions"),
        (OSError("odd"), "odd; check the path and the disk"),
    ],
)
def test_what_the_system_refuses_is_told_in_one_line(error, said, capsys, monkeypatch):
    monkeypatch.setattr("ctc_imaging.recount.recount", raiser(error))
    assert main(["counts", "run"]) == 2
    assert_one_line(capsys.readouterr(), said)


def test_ctrl_c_exits_with_130(capsys, monkeypatch):
    monkeypatch.setattr("ctc_imaging.recount.recount", raiser(KeyboardInterrupt()))
    assert main(["counts", "run"]) == 130
    assert_one_line(capsys.readouterr(), "interrupted; the same command goes on")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("ctc_imaging.recount.recount", raiser(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["counts", "run"])


def raiser(error: BaseException):
    def fail(*_arguments, **_options):
        raise error

    return fail


def test_run_counts_and_reviews_from_start_to_end(fake, tmp_path, capsys):
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "raise"})
    run = tmp_path / "run"
    assert main(["run", str(cohort), "--out", str(run), "--workers", "1", "--json"]) == 1
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["done"], facts["failed"]) == (1, {"S2": "ValueError: no cells in this text"})
    assert facts["report"] == str(run / "report.html")
    assert "slide S2 failed" in captured.err
    assert "2 of 2 slides, 1 failed" in captured.err

    (tmp_path / "reviews.csv").write_text("slide_id;cell_id;call;reader\nS1;1;artefact;A\n")
    assert main(["review", "import", str(run), str(tmp_path / "reviews.csv")]) == 0
    assert capsys.readouterr().out.startswith("1 reviews added, 0 known before")
    assert main(["review", "export", str(run), str(tmp_path / "out.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reviews"] == 1
    assert pd.read_csv(tmp_path / "out.csv")["call"].tolist() == ["artefact"]

    assert main(["run", str(cohort), "--out", str(run), "--seed", "4"]) == 2
    assert_one_line(capsys.readouterr(), "configuration (seed was 0, is 4)", "--force")


def test_counts_says_what_the_timeline_cannot(fake, tmp_path, capsys):
    run = fake.make_run(tmp_path, {"S1": "a", "S2": "b"})
    assert main(["counts", str(run.path), "--json"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["samples"], facts["assessable"], facts["reviewed"]) == (2, 2, 0)
    assert "ctc-imaging: note: Day 0 is each patient's first sample" in captured.err


def test_report_prints_where_the_page_is(fake, tmp_path, capsys):
    run = fake.make_run(tmp_path, {"S1": "a"})
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path / 'report.html'}\n"


def test_simulate_and_inspect_a_slide(tmp_path, capsys):
    size = ["--shape", "384,384", "--ctc", "1", "--leukocytes", "10"]
    assert main(["simulate", "slide", "--out", str(tmp_path / "slide"), "--seed", "3", *size, "--json"]) == 0
    slide = json.loads(capsys.readouterr().out)["slide"]
    assert (pd.read_csv(tmp_path / "slide" / "truth.csv")["class"] == "leukocyte").sum() == 10
    assert main(["inspect", slide, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["shape"], seen["pixel_size_um"]) == ([4, 384, 384], 0.5)
    assert main(["inspect", slide]) == 0
    shown = capsys.readouterr().out
    assert "pixel_size_um: 0.5" in shown
    assert "blocks_ok" not in shown


def test_simulate_a_cohort_of_tables(tmp_path, capsys):
    command = ["simulate", "cohort", "--out", str(tmp_path), "--patients", "3", "--tables-only", "--no-controls"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cohort.csv'}\n"
    assert pd.read_csv(tmp_path / "clinical.csv")["patient_id"].nunique() == 3
    assert not (tmp_path / "slides").exists()


def test_nowhere_to_keep_compiled_code_is_said_in_one_line(capsys, monkeypatch):
    def no_locator():
        raise RuntimeError("cannot cache function 'cut': no locator available for file 'windows.py'")

    monkeypatch.setattr("ctc_imaging.classification.list_models", no_locator)
    assert main(["models"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ctc-imaging: error: system: no folder can be written to for compiled code; name one in NUMBA_CACHE_DIR"
    ]


def test_models_are_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ctc_imaging.classification.list_models", lambda: {})
    assert main(["models"]) == 0
    assert capsys.readouterr().out == "no models found\n"
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": []}


PLUG_IN = """
from ctc_imaging.cli.app import subcommands
from ctc_imaging.cli.options import App, Blinded, Reader, Run
from ctc_imaging.cli.review import WINDOW

def register(app: App) -> None:
    app.command()(dance)
    subcommands(app, "review").command(WINDOW)(window)

def dance() -> None:
    "Dance."
    print("dancing")

def window(run: Run, reader: Reader, blinded: Blinded = False) -> None:
    "Open a window."
    print("window", run, reader, blinded)
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Return a function that installs a plug-in of this code."""

    def plug_in(code: str) -> None:
        (tmp_path / "a_plug_in.py").write_text(code)
        entry_point = EntryPoint("a", "a_plug_in:register", app_module.GROUP)
        monkeypatch.setattr(app_module.metadata, "entry_points", lambda group: (entry_point,))

    monkeypatch.syspath_prepend(tmp_path)
    yield plug_in
    sys.modules.pop("a_plug_in", None)


def test_a_plug_in_adds_commands_and_brings_the_window(plug_in, capsys):
    plug_in(PLUG_IN)
    assert main(["dance"]) == 0
    assert main(["review", "run", "--reader", "A. Reader", "--blinded"]) == 0
    assert capsys.readouterr().out == "dancing\nwindow run A. Reader True\n"
    assert main(["review", "import", "run", "none.csv"]) == 2


def test_a_plug_in_whose_extra_is_missing_is_passed_over(plug_in, capsys):
    plug_in("import a_package_nobody_has\n")
    assert main(["--version"]) == 0
    assert capsys.readouterr().err == ""


def test_a_broken_plug_in_is_noted_and_costs_nothing_else(plug_in, capsys):
    plug_in("from ctc_imaging.errors import Nothing\n")
    assert main(["--version"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("ctc-imaging: note: the commands of plug-in a are left out")
    assert captured.out.startswith("ctc-imaging ")


def test_a_group_is_found_by_its_name():
    assert subcommands(app_module.make_app(), "review") is not None
    with pytest.raises(KeyError):
        subcommands(app_module.make_app(), WINDOW)


def test_a_shape_is_two_numbers():
    assert options.parse_shape("4096,512") == (4096, 512)
    with pytest.raises(ctc_imaging.errors.ConfigError):
        options.parse_shape("4096x512")


@pytest.fixture
def small_demo(monkeypatch):
    for name, value in (("PATIENTS", 2), ("SURVIVAL_PATIENTS", 5), ("SHAPE_PX", (384, 384)), ("LEUKOCYTES", 5)):
        monkeypatch.setattr(demo, name, value)


def test_the_demo_simulates_once_and_runs_on_it(small_demo, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(demo, "run_cohort", lambda *args, **options: given.update(options, args=args))
    told = []
    demo.simulate_demo(tmp_path / "demo", seed=2, workers=1, progress=told.append)
    assert told[-1].left == 0
    cohort, run = tmp_path / "demo" / "cohort", tmp_path / "demo" / "run"
    before = (cohort / "cohort.csv").stat().st_mtime_ns
    demo.simulate_demo(tmp_path / "demo", seed=2, workers=1)
    assert (cohort / "cohort.csv").stat().st_mtime_ns == before
    demo.run_demo(tmp_path / "demo", seed=2)
    assert given["args"][:2] == (cohort / "cohort.csv", run)
    assert all(given[name].is_file() for name in ("clinical", "imaging", "schedule"))
    assert {"counts.csv", "clinical.csv", "README.txt"} <= {path.name for path in (run / "survival").iterdir()}
    assert (run / "survival" / "README.txt").read_text().startswith("Simulated")
    with pytest.raises(RunError, match="seed 2"):
        demo.simulate_demo(tmp_path / "demo", seed=3)


def test_the_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(RunError, match="holds no demo"):
        demo.simulate_demo(tmp_path)
