"""Reviews as tables: all or none, append-only, the latest one counts, and the same file adds nothing twice."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import CtcImagingError, RunError, TableError
from ctc_imaging.recount import recount
from ctc_imaging.reviewed import reviewed_cells
from ctc_imaging.store.labels import create_labels, finish_labels
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.record import Review
from ctc_imaging.store.reviews import export_reviews, import_reviews
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.store.standing import apply_reviews

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.syspath_prepend(FAKES)
    import fake_pipeline

    fake_pipeline.without_heavy_parts(monkeypatch)
    return fake_pipeline.make_run(tmp_path, {"S1": "a", "S2": "b"})


def cell_called(run: RunFolder, slide_id: str, call: str, place: int = 0) -> int:
    cells = pd.read_parquet(run.slide(slide_id) / "cells.parquet")
    return int(cells.loc[cells["call"] == call, "cell_id"].iloc[place])


def write_table(run: RunFolder, *rows: dict, name: str = "reviews.csv") -> Path:
    file = run.path.parent / name
    table = pd.DataFrame([{"slide_id": "S1", "cell_id": 1, "reader": "A", **row} for row in rows])
    table.to_parquet(file) if file.suffix == ".parquet" else table.to_csv(file, index=False)
    return file


def reviews_in(run: RunFolder) -> list[Review]:
    with Ledger(run.ledger) as ledger:
        return ledger.reviews()


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.parquet"])
def test_a_table_is_added_with_what_it_overrules(run, name):
    cell = cell_called(run, "S1", "ctc")
    result = import_reviews(run, write_table(run, {"cell_id": cell, "call": "artefact", "reason": "dust"}, name=name))
    assert (result.added, result.known, result.notes) == (1, 0, ())
    (review,) = reviews_in(run)
    assert (review.call, review.earlier_call, review.reader, review.reason) == ("artefact", "ctc", "A", "dust")
    assert (review.model_hash, review.run_hash) == ("0" * 64, run.read()["hash"])
    assert datetime.now(UTC) - datetime.fromisoformat(review.time) < timedelta(minutes=1)


@pytest.mark.parametrize("time", [None, "2026-03-05T14:30:00+08:00"])
def test_the_same_file_twice_adds_nothing(run, time):
    file = write_table(run, {"call": "ctc", "phenotype": "hybrid", "time": time}, {"cell_id": 2, "call": "unsure"})
    assert import_reviews(run, file).added == 2
    before = reviews_in(run)
    result = import_reviews(run, file)
    assert (result.added, result.known) == (0, 2)
    assert reviews_in(run) == before
    assert before[1].call == "indeterminate"


def test_a_reader_may_change_their_mind_back_and_forth(run):
    ctc = write_table(run, {"call": "ctc"}, name="one.csv")
    dirt = write_table(run, {"call": "artefact"}, name="two.csv")
    assert [import_reviews(run, file).added for file in (ctc, dirt, ctc, ctc)] == [1, 1, 1, 0]
    assert [review.call for review in reviews_in(run)] == ["ctc", "artefact", "ctc"]
    assert [review.earlier_call for review in reviews_in(run)][1:] == ["ctc", "artefact"]


def test_times_decide_which_call_was_in_force(run):
    rows = [{"call": "leukocyte", "time": "2026-02-01"}, {"call": "ctc", "time": "2026-01-01"}]
    import_reviews(run, write_table(run, *rows))
    by_call = {review.call: review for review in reviews_in(run)}
    assert by_call["leukocyte"].earlier_call == "ctc"
    assert by_call["ctc"].time == "2026-01-01T00:00:00.000000+00:00"
    import_reviews(run, write_table(run, {"call": "artefact", "time": "2026-01-15T12:00:00"}))
    assert reviews_in(run)[-1].earlier_call == "ctc"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"slide_id": "S9", "call": "ctc"}, "row 3, column slide_id: 'S9' isn't a slide"),
        ({"cell_id": 9999, "call": "ctc"}, "slide S1 has no cell 9999"),
        ({"cell_id": "x", "call": "ctc"}, "'x' isn't a number"),
        ({"call": "tumour"}, "'tumour' isn't known; use one of ctc, leukocyte, artefact, indeterminate"),
        ({"call": "leukocyte", "phenotype": "hybrid"}, "has no phenotype"),
        ({"call": "ctc", "phenotype": "purple"}, "'purple' isn't known"),
        ({"call": "ctc", "reader": ""}, "column reader: the value is missing"),
        ({"call": "ctc", "time": "yesterday"}, "isn't a time"),
        ({"call": "ctc", "time": "2999-01-01"}, "lies in the future"),
        ({"call": "leukocyte", "cell_id": 1}, "twice and no time"),
        ({"call": "ctc", "run_hash": "f" * 64}, "made on another run"),
    ],
)
@pytest.mark.parametrize("name", ["reviews.csv", "reviews.parquet"])
def test_one_wrong_row_keeps_all_rows_out(run, row, said, name):
    file = write_table(run, {"call": "ctc"}, {"cell_id": 2, **row}, name="reviews.csv")
    if name.endswith("parquet"):
        pd.read_csv(file, dtype=str).to_parquet(run.path.parent / name)
    with pytest.raises(TableError) as caught:
        import_reviews(run, run.path.parent / name)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert reviews_in(run) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide_id,cell_id,call\nS1,1,ctc\n", "column reader is missing"),
        ("slide_id,cell_id,call,reader,phenotpye\nS1,1,ctc,A,hybrid\n", "did you mean phenotype?"),
        ("", "empty"),
    ],
)
def test_a_table_with_other_columns_is_refused(run, tmp_path, text, said):
    (tmp_path / "reviews.csv").write_text(text)
    with pytest.raises(TableError) as caught:
        import_reviews(run, tmp_path / "reviews.csv")
    assert said in str(caught.value)


def test_files_that_are_no_tables_are_refused(run, tmp_path):
    (tmp_path / "reviews.parquet").write_text("slide_id,cell_id")
    with pytest.raises(TableError, match="not a Parquet table"):
        import_reviews(run, tmp_path / "reviews.parquet")
    with pytest.raises(TableError, match="no such file"):
        import_reviews(run, tmp_path / "none.parquet")
    pd.DataFrame({"slide_id": ["S1"], "colour": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(TableError, match="colour isn't known"):
        import_reviews(run, tmp_path / "other.parquet")
    with pytest.raises(TableError, match=r"name it \.csv or \.parquet"):
        export_reviews(run, tmp_path / "reviews.xlsx")
    with pytest.raises(RunError, match="no run here"):
        import_reviews(RunFolder(tmp_path), tmp_path / "reviews.csv")


def test_overruling_the_model_without_a_reason_is_allowed_and_noted(run):
    cell = cell_called(run, "S1", "ctc")
    result = import_reviews(run, write_table(run, {"cell_id": cell, "call": "artefact"}))
    assert result.added == 1
    assert f"first cell {cell} of S1" in result.notes[0]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_what_is_exported_imports_to_nothing_new(run, tmp_path, name):
    import_reviews(run, write_table(run, {"call": "ctc"}, {"slide_id": "S2", "call": "artefact", "reason": "a, b"}))
    before = reviews_in(run)
    assert export_reviews(run, tmp_path / name) == 2
    result = import_reviews(run, tmp_path / name)
    assert (result.added, result.known) == (0, 2)
    assert reviews_in(run) == before


def test_an_export_of_no_reviews_still_has_its_columns(run, tmp_path):
    assert export_reviews(run, tmp_path / "out.csv") == 0
    assert list(pd.read_csv(tmp_path / "out.csv"))[:4] == ["slide_id", "cell_id", "call", "phenotype"]


def test_counts_follow_the_reviews_and_say_so(run):
    before = recount(run).counts.set_index("sample_id")
    changed = cell_called(run, "S1", "ctc")
    with_labels(run, "S1")
    import_reviews(run, write_table(run, {"cell_id": changed, "call": "leukocyte", "reason": "CD45"}))
    after = recount(run).counts.set_index("sample_id")
    sample, other = before.index
    assert after.loc[sample, "ctc"] == before.loc[sample, "ctc"] - 1
    assert after.loc[sample, "leukocyte"] == before.loc[sample, "leukocyte"] + 1
    assert after.loc[sample, "ctc_machine"] == before.loc[sample, "ctc"]
    assert (after.loc[sample, "reviewed"], after.loc[sample, "readers"]) == (1, "A")
    assert (after.loc[other, "reviewed"], after.loc[other, "ctc"]) == (0, before.loc[other, "ctc"])


def test_clusters_follow_the_reviews_too(run):
    cells = pd.read_parquet(run.slide("S1") / "cells.parquet")
    pair = cells["cell_id"].iloc[:2].tolist()
    cells["call"] = np.where(cells["cell_id"].isin(pair), "ctc", "leukocyte")
    cells.loc[:1, ["y_px", "x_px"]] = [[20, 20], [20, 26]]
    cells.loc[2:, ["y_px", "x_px"]] = 55
    cells[["y_um", "x_um"]] = cells[["y_px", "x_px"]] * 0.5
    cells.to_parquet(run.slide("S1") / "cells.parquet", index=False)
    with_labels(run, "S1")
    panel = run.panel()
    agreed = [review_of(run, cell, "ctc") for cell in pair]
    assert not reviewed_cells(run, "S1", agreed, panel)["cluster_id"].any(), "no call changed: as the pipeline found"
    third = int(cells["cell_id"].iloc[2])
    with_third = reviewed_cells(run, "S1", [*agreed, review_of(run, third, "artefact")], panel)
    assert with_third.loc[with_third["cluster_id"] > 0, "cell_id"].tolist() == pair
    broken = reviewed_cells(run, "S1", [review_of(run, pair[0], "artefact")], panel)
    assert not broken["cluster_id"].any()


def test_a_review_of_another_run_or_scan_does_not_apply(run):
    cell = cell_called(run, "S1", "ctc")
    stale = review_of(run, cell, "artefact")
    with Ledger(run.ledger) as ledger:
        ledger.add_reviews([replace(stale, run_hash="e" * 64), replace(stale, slide_sha256="e" * 64)])
    assert recount(run).counts["reviewed"].sum() == 0
    assert len(reviews_in(run)) == 2


def with_labels(run: RunFolder, slide_id: str) -> None:
    """Give a slide a label image: a square of 5 px for each cell."""
    cells = pd.read_parquet(run.slide(slide_id) / "cells.parquet")
    folder = run.slide(slide_id) / "labels.ome.zarr"
    labels = create_labels(folder, 64, 64)
    plane = np.zeros((64, 64), np.uint32)
    for cell in cells.to_dict("records"):
        y, x = int(cell["y_px"]), int(cell["x_px"])
        plane[y - 2 : y + 3, x - 2 : x + 3] = cell["cell_id"]
    labels[0] = plane
    finish_labels(folder, 0.5)


def review_of(run: RunFolder, cell_id: int, call: str) -> Review:
    with Ledger(run.ledger) as ledger:
        sha256 = ledger.slides()["S1"].sha256
    time = "2026-01-01T00:00:00.000000+00:00"
    return Review("S1", cell_id, call, "", "A", time, "", "", "", run.read()["hash"], sha256)


CELLS = pd.DataFrame(
    {"cell_id": [3, 5, 8], "call": ["ctc", "leukocyte", "ctc"], "phenotype": ["hybrid", "", "epithelial"]}
)
REVIEWS = st.lists(
    st.builds(
        Review,
        slide_id=st.just("S1"),
        cell_id=st.sampled_from([3, 5, 8]),
        call=st.sampled_from(["ctc", "leukocyte", "artefact", "indeterminate"]),
        phenotype=st.sampled_from(["", "mesenchymal"]),
        reader=st.sampled_from(["A", "B"]),
        time=st.sampled_from([f"2026-01-0{day}T00:00:00.000000+00:00" for day in range(1, 4)]),
        **{name: st.just("") for name in ("reason", "earlier_call", "model_hash", "run_hash", "slide_sha256")},
    ),
    max_size=8,
)


@given(REVIEWS)
def test_the_latest_review_of_a_cell_counts_and_the_machine_call_stays(reviews):
    final = apply_reviews(CELLS, reviews)
    assert final["machine_call"].tolist() == CELLS["call"].tolist()
    assert final["machine_phenotype"].tolist() == CELLS["phenotype"].tolist()
    for cell in final.to_dict("records"):
        own = [review for review in reviews if review.cell_id == cell["cell_id"]]
        latest = [review for review in own if review.time == max(other.time for other in own)][-1:]
        assert cell["reviewed"] == bool(own)
        assert cell["call"] == (latest[0].call if own else cell["machine_call"])
        assert cell["reader"] == (latest[0].reader if own else "")
        assert (cell["phenotype"] != "") == (cell["call"] == "ctc")


def test_a_ctc_confirmed_keeps_its_phenotype_and_a_new_one_has_none_yet():
    plain = Review("S1", 3, "ctc", "", "A", "2026", "", "", "", "", "")
    final = apply_reviews(CELLS, [plain, replace(plain, cell_id=5)])
    assert final["phenotype"].tolist() == ["hybrid", "undetermined", "epithelial"]


def test_applying_reviews_leaves_the_cells_as_they_were():
    before = CELLS.copy()
    apply_reviews(CELLS, [Review("S1", 3, "artefact", "", "A", "2026", "", "", "", "", "")])
    pd.testing.assert_frame_equal(CELLS, before)


TABLES = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {
                "slide_id": st.sampled_from(["S1", "S2", "S3"]),
                "cell_id": st.sampled_from([1, 2, 9999]),
                "call": st.sampled_from(["ctc", "leukocyte", "nonsense"]),
                "reader": st.sampled_from(["A", "B"]),
                "time": st.sampled_from(["", "2026-01-01", "2026-01-02T10:00:00Z"]),
            }
        ),
        min_size=1,
        max_size=3,
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def empty_run() -> RunFolder:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(FAKES)
        import fake_pipeline

        fake_pipeline.without_heavy_parts(monkeypatch)
        yield fake_pipeline.make_run(Path(folder), {"S1": "a", "S2": "b"})


@given(TABLES)
def test_no_sequence_of_imports_ever_changes_an_old_review(empty_run, tables):
    before = reviews_in(empty_run)
    for rows in tables:
        file = write_table(empty_run, *rows)
        try:
            added = import_reviews(empty_run, file).added
        except CtcImagingError:
            added = 0
        after = reviews_in(empty_run)
        assert after[: len(before)] == before
        assert len(after) == len(before) + added
        before = after
