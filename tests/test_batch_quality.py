"""A slide beside its batch: what stands out is named, what doesn't isn't, and no count is ever changed."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.batch_quality import (
    STAIN_COLUMNS,
    add_remarks,
    batch_shifts,
    batch_table,
    judge_controls,
    mark_failed_controls,
    stain_figures,
    stain_remarks,
    stain_rows,
)
from ctc_imaging.batch_quality.controls import recovery_limits
from ctc_imaging.batch_quality.staining import FALSE_ALARMS, deviations
from ctc_imaging.cohort import SlideEntry
from ctc_imaging.counting import COUNT_COLUMNS, poisson_limits
from ctc_imaging.panel import CutOff, load_panel
from ctc_imaging.recount import recount

CUTOFF = CutOff(2, 5.0, "assay", "source")
PANEL = load_panel("emt-4")
NO_REMARKS = pd.DataFrame(columns=["sample_id", "figure", "text"])


def entry(slide_id: str, **values) -> SlideEntry:
    known = {
        "slide": Path(f"{slide_id}.tif"), "patient_id": "P1", "sample_date": date(2025, 3, 3), "blood_volume_ml": 5.0,
        "slide_id": slide_id, "sample_id": slide_id, "sample_kind": "patient", "spiked_cells": None,
        "volume_on_slide_ml": 5.0, "rescan_of": None, "batch": "B1", "site": None, "panel": None, "pixel_size_um": 0.5,
    }  # fmt: skip
    return SlideEntry(**known | values)


def stains(strengths, batch="B1", kind="patient", channel="cd45", **columns) -> pd.DataFrame:
    """Return a table of one stain, a slide for each strength."""
    role = {channel.short: str(channel.role) for channel in PANEL.channels}[channel]
    names = [f"{batch}-{kind}-{place}" for place in range(len(strengths))]
    table = pd.DataFrame({"slide_id": names, "sample_id": names, "leukocyte_snr": np.asarray(strengths, dtype=float)})
    known = {
        "sample_kind": kind, "sample_date": "2025-03-03", "site": "", "batch": batch, "panel": "emt-4",
        "channel": channel, "role": role, "leukocytes": 250, "ctc": 0, "ctc_snr": np.nan, "background": 200.0,
        "noise": 18.0, "positive_from_snr": 3.0,
    }  # fmt: skip
    return table.assign(**known | columns)[list(STAIN_COLUMNS)]


def remarks(table: pd.DataFrame) -> dict[str, str]:
    found = stain_remarks(stain_figures(table))
    return dict(found.groupby("slide_id")["text"].agg("; ".join))


def around(count: int, level: float = 10.0, spread: float = 0.1, seed: int = 0) -> np.ndarray:
    return level * np.exp(spread * np.random.default_rng(seed).standard_normal(count))


# --- stains


def test_a_weak_slide_is_named_with_ratio_and_batch():
    table = pd.concat([stains([*around(9), 3.0]), stains(around(10, seed=1), batch="B2")], ignore_index=True)
    assert remarks(table) == {"B1-patient-9": "cd45 is 0.3 times as strong as in the rest of batch B1"}


def test_a_run_without_batches_is_compared_as_a_whole_and_sites_apart():
    whole = stains([*around(9), 30.0], batch="")
    assert remarks(whole) == {"-patient-9": "cd45 is 3 times as strong as in the rest of the run"}
    north, south = stains(around(8), site="north"), stains(around(8, level=3), site="south")
    assert remarks(pd.concat([north, south], ignore_index=True)) == {}


@pytest.mark.parametrize("strengths", [[10, 10, 1], [10, 10, 10, 1], [10, 1], [1]])
def test_fewer_than_five_slides_raise_no_alarm(strengths):
    assert remarks(stains(strengths)) == {}


def test_a_difference_that_no_eye_sees_is_no_alarm_however_alike_the_others():
    assert remarks(stains([10.0] * 12 + [6.0])) == {}
    assert list(remarks(stains([10.0] * 12 + [4.9]))) == ["B1-patient-12"]


def test_where_slides_differ_much_anyway_a_weak_one_is_no_alarm():
    assert remarks(stains([*around(9, spread=0.6), 4.0])) == {}


def test_background_and_noise_are_compared_too():
    table = stains(around(10)).assign(background=[200.0] * 9 + [700.0], noise=[18.0] * 9 + [45.0])
    text = remarks(table)["B1-patient-9"]
    assert text == (
        "the background of cd45 is 3.4 times that of the rest of batch B1; "
        "the noise of cd45 is 2.5 times that of the rest of batch B1"
    )


def test_a_stain_only_ctcs_carry_is_judged_on_cell_lines_never_on_patients():
    patients = stains([0.3] * 10, channel="ck", ctc=8, ctc_snr=[*around(9), 1.0])
    assert remarks(patients) == {}
    assert "strength" not in set(stain_figures(patients)["figure"])
    lines = [stains([0.3], f"B{b}", "spiked", "ck", ctc=15, ctc_snr=snr) for b, snr in enumerate([*around(7), 2.0])]
    expected = {"B7-spiked-0": "ck is 0.2 times as strong on its CTCs as in the other spiked slides"}
    assert remarks(pd.concat([patients, *lines], ignore_index=True)) == expected


def test_a_stain_that_leukocytes_carry_is_judged_on_them_whatever_its_role():
    assert list(remarks(stains([*around(9, level=6), 1.5], channel="vim"))) == ["B1-patient-9"]


def test_a_whole_batch_that_is_off_shows_beside_the_others_only():
    good = [stains(around(6, seed=b), batch=f"B{b}") for b in range(5)]
    table = pd.concat([*good, stains(around(6, level=3, seed=9), batch="B9")], ignore_index=True)
    assert remarks(table) == {}
    shifts = batch_shifts(stain_figures(table))
    assert list(shifts["text"]) == ["cd45 of batch B9 is 0.3 times as strong as in the other batches"]
    assert batch_shifts(stain_figures(table[table["batch"].isin(["B0", "B1", "B9"])])).empty


def test_rows_are_measured_on_counted_cells_and_missing_where_there_are_few():
    cells = pd.DataFrame({"call": ["leukocyte"] * 30 + ["ctc"] * 4, "edges": ""})
    cells = cells.assign(
        nucleus_area_um2=40.0,
        dapi_snr=30.0,
        ck_snr=0.3,
        vim_snr=6.0,
        cd45_snr=np.r_[np.full(24, 9.0), np.full(10, 1.0)],
    )
    cells["assessed"] = np.arange(34) < 24
    quality = {"assessable": True, "channels": {c: {"background": 200.0, "noise": 18.0} for c in PANEL.shorts}}
    rows = {row["channel"]: row for row in stain_rows(entry("a"), cells, quality, PANEL)}
    assert rows["cd45"]["leukocyte_snr"] == 9.0
    assert rows["cd45"]["leukocytes"] == 24
    assert rows["ck"]["positive_from_snr"] == pytest.approx(3.3)
    assert rows["vim"]["positive_from_snr"] == 3.0
    assert np.isnan(rows["cd45"]["positive_from_snr"])
    assert np.isnan(rows["ck"]["ctc_snr"])
    few = {row["channel"]: row for row in stain_rows(entry("a"), cells[5:], quality, PANEL)}
    assert np.isnan(few["cd45"]["leukocyte_snr"])
    assert stain_rows(entry("a"), cells, quality | {"assessable": False}, PANEL) == []


def test_false_alarms_on_normal_draws_stay_below_the_stated_rate():
    rng = np.random.default_rng(0)
    for sizes in ([5], [20], [60], [5] * 4):
        group = np.repeat(np.arange(len(sizes)), sizes)
        draws = [deviations(rng.standard_normal(group.size), group)[1] for _ in range(6000 // group.size)]
        assert np.mean(np.concatenate(draws) < FALSE_ALARMS) < FALSE_ALARMS


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-5, 5), min_size=1, max_size=25),
    seed=st.integers(0, 99),
    shift=st.floats(-3, 3),
)
def test_deviations_keep_to_the_values_whatever_their_order_and_unit(values, seed, shift):
    rng = np.random.default_rng(seed)
    array, group = np.round(values, 6), rng.integers(0, 3, len(values))
    order = rng.permutation(len(values))
    difference, p_value = deviations(array, group)
    assert np.isnan(difference).tolist() == [(group == g).sum() == 1 for g in group]
    assert ((p_value >= 0) & (p_value <= 1) | np.isnan(p_value)).all()
    again, p_again = deviations(array[order] + shift, group[order])
    np.testing.assert_allclose(again, difference[order], atol=1e-9)
    # Where the spread is nought but rounding, any p-value may come out.
    if len(set(array)) == len(array):
        np.testing.assert_allclose(p_again, p_value[order], atol=1e-6)


def test_remarks_join_the_reasons_and_touch_nothing_else():
    slides = pd.DataFrame({"slide_id": ["a", "b", "c"], "quality_reasons": ["dust", "", None], "assessable": True})
    told = pd.DataFrame({"slide_id": ["a", "a", "b"], "text": ["x", "y", "z"]})
    after = add_remarks(slides, told)
    assert list(after["quality_reasons"]) == ["dust; x; y", "z", ""]
    pd.testing.assert_frame_equal(after.drop(columns="quality_reasons"), slides.drop(columns="quality_reasons"))


# --- controls


def judge(samples: list[dict], cutoff: CutOff | None = CUTOFF, told: pd.DataFrame = NO_REMARKS) -> pd.DataFrame:
    """Judge controls given by id, kind, found CTCs and whatever differs from a good 5 mL."""
    entries, rows = [], []
    for place, sample in enumerate(samples):
        known = {"batch": f"B{place}", "assessable": True, "blood_volume_ml": 5.0, "assessed_volume_ml": 5.0} | sample
        name, kind = known["sample_id"], known["sample_kind"]
        day = date(2025, 3, 1 + place)
        spiked = known.get("spiked_cells")
        entries.append(entry(name, sample_kind=kind, batch=known["batch"], spiked_cells=spiked, sample_date=day))
        rows.append(known | {"sample_date": day.isoformat(), "quality_reasons": known.get("quality_reasons", "")})
    counts = pd.DataFrame(rows).reindex(columns=list(COUNT_COLUMNS))
    return judge_controls(counts, batch_table(entries), cutoff, told).set_index("sample_id")


def blanks(*found, **columns) -> list[dict]:
    return [{"sample_id": f"b{n}", "sample_kind": "blank", "ctc": ctc} | columns for n, ctc in enumerate(found)]


def spikes(*found, cells=20, **columns) -> list[dict]:
    known = {"sample_kind": "spiked", "spiked_cells": cells} | columns
    return [{"sample_id": f"s{n}", "ctc": ctc} | known for n, ctc in enumerate(found)]


def test_a_blank_that_a_patient_would_be_positive_with_has_failed():
    verdicts = judge(blanks(0, 1, 2, 0))
    assert list(verdicts["verdict"]) == ["passed", "passed", "failed", "passed"]
    assert verdicts.loc["b2", "reason"] == "2 CTCs in 5 mL: a patient with as many would be called positive"
    assert verdicts.loc["b0", "high"] == pytest.approx(poisson_limits(0)[1] / 5)


def test_without_a_cut_off_for_the_volume_a_blank_is_judged_by_the_others():
    verdicts = judge(blanks(1, 0, 2, 1, 9, blood_volume_ml=7.5))
    assert list(verdicts["verdict"]) == ["passed"] * 4 + ["failed"]
    assert verdicts.loc["b4", "reason"] == "9 CTCs in 5 mL, 0.2 per mL in the other blanks"
    alone = judge(blanks(9), cutoff=None).loc["b0"]
    assert alone["verdict"] == "not judged"
    assert "no other blank" in alone["reason"]


def test_false_alarms_of_good_blanks_stay_below_the_stated_rate():
    rng = np.random.default_rng(3)
    failed = [(judge(blanks(*rng.poisson(1.5, 12)), cutoff=None)["verdict"] == "failed").mean() for _ in range(40)]
    assert np.mean(failed) < 0.00135 + 3 * np.sqrt(0.00135 / 480)


def test_recovery_is_of_the_cells_in_the_assessed_blood():
    row = judge(spikes(9, assessed_volume_ml=2.5)).loc["s0"]
    assert row["out_of"] == 10
    assert row["rate"] == 0.9
    assert row["low"] < 0.9 <= row["high"] <= 1
    assert row["verdict"] == "passed"


def test_a_spiked_sample_that_lost_most_or_more_than_the_others_has_failed():
    verdicts = judge(spikes(17, 16, 18, 6, 17))
    assert list(verdicts["verdict"]) == ["passed"] * 3 + ["failed", "passed"]
    assert verdicts.loc["s3", "reason"] == "30% recovered, 85% in the other spiked samples"
    alone = judge(spikes(3)).loc["s0"]
    assert alone["verdict"] == "failed"
    assert "more cells are lost than found" in alone["reason"]
    assert judge(spikes(3, cells=None)).loc["s0", "verdict"] == "not judged"


def test_a_batch_whose_spiked_samples_together_lose_more_than_they_give_has_failed():
    """Each of them alone might still have given half."""
    together = spikes(7, 7, 7, 7, 7, batch="B1")
    verdicts = judge([*together, {**spikes(18)[0], "sample_id": "good", "batch": "B2"}], cutoff=None)
    assert (verdicts.loc[["s0", "s4"], "high"] > 0.5).all()
    assert list(verdicts["verdict"]) == ["failed"] * 5 + ["passed"]
    said = "35% recovered over its batch's spiked samples, at most 45%: more cells are lost than found"
    assert verdicts.loc["s0", "reason"] == said
    assert list(judge(spikes(7, 7, 7, 7, 7))["verdict"]) == ["passed"] * 5


def test_a_control_without_a_result_has_failed_whatever_its_kind():
    kinds = ("blank", "donor", "spiked", "stain_control")
    lost = {"assessable": False, "ctc": None, "assessed_volume_ml": None, "quality_reasons": "out of focus"}
    verdicts = judge([{"sample_id": kind, "sample_kind": kind, **lost} for kind in kinds])
    assert set(verdicts["verdict"]) == {"failed"}
    assert set(verdicts["reason"]) == {"no result: out of focus"}


def test_a_stain_control_fails_by_its_stain():
    told = pd.DataFrame({"sample_id": ["c1"], "figure": ["strength"], "text": ["ck is 0.2 times as strong"]})
    names = ["c0", "c1"]
    verdicts = judge([{"sample_id": n, "sample_kind": "stain_control", "ctc": 30} for n in names], told=told)
    assert list(verdicts["verdict"]) == ["passed", "failed"]


@settings(max_examples=40, deadline=None)
@given(found=st.integers(0, 60), spiked=st.integers(1, 50), share=st.floats(0.3, 1))
def test_limits_of_recovery_hold_the_estimate(found, spiked, share):
    low, high = recovery_limits(found, spiked, share)
    assert 0 <= low <= high
    assert low <= found / (spiked * share) + 1e-9
    assert high >= min(1.0, found / (spiked * share)) - 1e-9


def test_a_failed_control_marks_the_results_of_its_batch_alone():
    rescan = entry("p1-again", sample_id="p1", rescan_of="p1")
    entries = [entry("p1"), rescan, entry("p2", batch="B2"), entry("p3"), entry("b1", sample_kind="blank")]
    batches = batch_table(entries)
    assert list(batches["slide_id"]) == ["p1-again", "p2", "p3", "b1"]
    counts = pd.DataFrame({
        "sample_id": ["p1", "p2", "p3", "b1"], "sample_kind": ["patient"] * 3 + ["blank"], "ctc": [3, 3, None, 7],
        "assessable": [True, True, False, True], "quality_reasons": ["dust", "", "", ""], "blood_volume_ml": 5.0,
        "assessed_volume_ml": 5.0, "sample_date": "2025-03-03",
    }).reindex(columns=list(COUNT_COLUMNS))  # fmt: skip
    controls = judge_controls(counts, batches, CUTOFF, NO_REMARKS)
    marked = mark_failed_controls(counts, batches, controls)
    assert list(marked["quality_reasons"]) == ["dust; batch B1 has a failed control (b1)", "", "", ""]
    pd.testing.assert_frame_equal(marked.drop(columns="quality_reasons"), counts.drop(columns="quality_reasons"))
    loose = batches.assign(batch="", batch_name="the run")
    unmarked = mark_failed_controls(counts, loose, judge_controls(counts, loose, CUTOFF, NO_REMARKS))
    assert list(unmarked["quality_reasons"]) == ["dust", "", "", ""]


# --- the run's tables


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a run of eight slides whose leukocytes show CD45, one of them weakly."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fakes")
    import fake_pipeline

    fake_pipeline.without_heavy_parts(monkeypatch)
    made = fake_pipeline.make_run(tmp_path, {f"S{place}": "a" for place in range(8)})
    channels = {short: {"background": 200.0, "noise": 18.0} for short in PANEL.shorts}
    for place in range(8):
        folder = made.slide(f"S{place}")
        quality = {"assessable": True, "assessed_fraction": 1.0, "reasons": ["dust"], "channels": channels}
        (folder / "quality.json").write_text(json.dumps(quality))
        cells = pd.read_parquet(folder / "cells.parquet").iloc[[0] * 30].assign(cell_id=range(1, 31), call="leukocyte")
        strengths = {
            "dapi_snr": 30.0,
            "ck_snr": 0.3,
            "vim_snr": 6.0,
            "cd45_snr": 2.0 if place == 3 else 9 + 0.1 * place,
        }
        cells.assign(**strengths).to_parquet(folder / "cells.parquet", index=False)
    return made


def test_recount_notes_what_stands_out_and_counts_as_before(run):
    tables = recount(run)
    said = "dust; cd45 is 0.21 times as strong as in the rest of the run"
    assert list(tables.slides["quality_reasons"]) == ["dust"] * 3 + [said] + ["dust"] * 4
    assert tables.counts.set_index("sample_id").loc[tables.slides["sample_id"][3], "quality_reasons"] == said
    assert tables.slides["assessable"].all()
    assert (tables.slides["leukocyte"] == 30).all()


def test_recount_fills_the_total_limits_from_what_the_model_was_measured_to_do(run):
    known = recount(run).counts
    assert known["ctc_per_ml_total_high"].notna().all()
    assert (known["ctc_expected_false"] > 0).all()
    assert known[["limit_of_blank", "limit_of_detection"]].isna().all(axis=None)
    rates = pd.read_csv(run.path / "error_rates.csv")
    assert list(rates["sample_id"]) == list(known["sample_id"])
    assert set(rates["false_from"]) == {"simulated"}
    timeline = pd.read_csv(run.path / "timeline.csv")
    assert timeline["ctc_per_ml_total_high"].notna().all()


def test_a_run_of_an_older_version_is_counted_without_them(run):
    facts = json.loads(run.description.read_text())
    del facts["model"]["error_rates"]
    run.description.write_text(json.dumps(facts))
    counts = recount(run).counts
    assert counts["ctc"].notna().all()
    assert counts[["ctc_per_ml_total_low", "ctc_expected_false"]].isna().all(axis=None)
    assert pd.read_csv(run.path / "error_rates.csv")["false_from"].isna().all()


def test_what_the_model_was_measured_to_do_is_no_part_of_a_runs_identity(run, monkeypatch):
    import fake_pipeline

    import ctc_imaging.inputs

    before = run.read()
    monkeypatch.setattr(ctc_imaging.inputs, "error_rates", lambda name: None)
    other = fake_pipeline.make_run(run.path.parent / "again", {f"S{place}": "a" for place in range(8)}).read()
    assert before["model"]["error_rates"]["sources"]
    assert "error_rates" not in other["model"]
    assert other["hash"] == before["hash"]


def test_recount_twice_gives_the_same_bytes(run):
    names = ("slides.csv", "counts.csv", "timeline.csv", "stains.csv", "error_rates.csv")
    recount(run)
    first = [(run.path / name).read_bytes() for name in names]
    recount(run)
    assert [(run.path / name).read_bytes() for name in names] == first
    stored = pd.read_csv(run.path / "stains.csv")
    assert len(stored) == 8 * 4
    assert tuple(stored) == STAIN_COLUMNS


def test_results_without_figures_of_stains_are_counted_all_the_same(run):
    (run.slide("S3") / "quality.json").write_text('{"assessable": true, "assessed_fraction": 1.0, "reasons": []}')
    assert list(recount(run).slides["quality_reasons"]) == ["dust"] * 3 + [""] + ["dust"] * 4
