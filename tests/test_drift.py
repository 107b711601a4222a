"""Drift: what is measured of a slide, the reference that training leaves, and when the alarm sounds."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.cohort import SlideEntry
from ctc_imaging.drift import DRIFT_COLUMNS, FIGURES, drift_rows, judge_drift, make_reference, slide_figures
from ctc_imaging.drift.reference import between_slides, comparable, key_of
from ctc_imaging.drift.scales import from_scale, ratio_limits, to_scale
from ctc_imaging.panel import load_panel

PANEL = load_panel("emt-4")
ROLES = {PANEL.name: [str(channel.role) for channel in PANEL.channels]}
LEUKOCYTE_SNR = {"dapi": 28.0, "ck": 0.4, "vim": 6.0, "cd45": 10.0}


def a_slide(rng, cells=600, ctc=6, **change):
    """Draw a slide's cells and quality; `change` multiplies a figure of its leukocytes, or names another one."""
    call = rng.choice(
        ["leukocyte", "artefact", "indeterminate"],
        cells,
        p=[1 - change.get("artefact", 0.03) - 0.003, change.get("artefact", 0.03), 0.003],
    )
    call[:ctc] = "ctc"
    doubt = rng.beta(0.02 * change.get("doubt", 1.0), 3.0, cells)
    table = pd.DataFrame({
        "y_um": rng.uniform(0, 1024, cells), "x_um": rng.uniform(0, 1024, cells),
        "diameter_um": 9.6 * change.get("size", 1.0) * rng.lognormal(0, 0.15, cells), "edges": "", "assessed": True,
        "nucleus_area_um2": 34.0 * rng.lognormal(0, 0.3, cells), "focus": 0.68 * rng.lognormal(0, 0.05, cells),
        "call": call, "p_ctc": 0.1 * doubt, "p_leukocyte": 1 - doubt, "p_artefact": 0.9 * doubt,
    })  # fmt: skip
    for short, snr in LEUKOCYTE_SNR.items():
        table[f"{short}_snr"] = snr * change.get(short, 1.0) * rng.lognormal(0, 0.4, cells)
    table.loc[call == "ctc", "ck_snr"] = 12 * rng.lognormal(0, 0.4, ctc)
    grounds = {short: {"background": 200.0 * rng.lognormal(0, 0.01), "noise": 18.0} for short in PANEL.shorts}
    return table, {"assessable": True, "channels": grounds}


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(1)
    return make_reference([a_slide(rng) for _ in range(40)], PANEL, simulated=True)


def an_entry(name="S1", batch="B1", day=0, kind="patient", site=""):
    when = date(2026, 1, 1) + timedelta(day)
    return SlideEntry(None, "P1", when, 5.0, name, name, kind, None, 5.0, None, batch, site, None, None)


def rows_of(batches, slides=2, seed=0, site=""):
    """Draw rows of several batches; each is a mapping of changes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, change in enumerate(batches):
        for place in range(slides):
            entry = an_entry(f"S{number}-{place}", f"B{number:02}", 7 * number, site=site)
            rows += drift_rows(entry, *a_slide(rng, **change), PANEL)
    return rows


def alarms_of(table):
    """Tell the figures with an alarm by batch."""
    found = table[table["alarm"] != ""].drop_duplicates(["batch", "figure", "channel"])
    return {batch: set(part["figure"] + part["channel"].map(lambda c: c and f"/{c}"))
            for batch, part in found.groupby("batch")}  # fmt: skip


# --- what is measured


def test_figures_are_told_of_the_cells_that_they_are_named_after():
    rng = np.random.default_rng(0)
    cells, quality = a_slide(rng, cells=500, ctc=10)
    found = {key_of(row.figure, row.role): row for row in slide_figures(cells, quality, PANEL)}
    leukocytes = cells[cells["call"] == "leukocyte"]
    assert found["leukocyte_snr/leukocyte"].value == pytest.approx(leukocytes["cd45_snr"].median())
    assert found["leukocyte_snr/leukocyte"].cells == len(leukocytes)
    assert found["ctc_snr/epithelial"].cells == 10
    assert found["ctc_share"].value == pytest.approx(10 / 500)
    assert found["noise/nucleus"].value == 18.0
    top = cells[["p_ctc", "p_leukocyte", "p_artefact"]].max(axis=1)
    assert found["mean_top_probability"].value == pytest.approx(top.mean())
    assert found["low_confidence_share"].value == pytest.approx((top < 0.9).mean())
    assert {row.figure for row in found.values()} == set(FIGURES)


def test_reviews_do_not_move_the_figures_as_drift_is_of_what_the_model_sees():
    cells, quality = a_slide(np.random.default_rng(0))
    reviewed = cells.assign(machine_call=cells["call"], call="artefact")
    assert slide_figures(reviewed, quality, PANEL) == slide_figures(cells, quality, PANEL)


def test_cut_and_unassessed_cells_are_left_out_and_few_cells_tell_nothing():
    cells, quality = a_slide(np.random.default_rng(0), cells=60)
    cells.loc[:9, "edges"], cells.loc[10:19, "assessed"] = "top", False
    assert slide_figures(cells, quality, PANEL) == slide_figures(cells[20:], quality, PANEL)
    few = {row.figure for row in slide_figures(cells[cells["call"] != "ctc"][30:45], quality, PANEL)}
    assert few == {"background", "noise"}
    assert slide_figures(cells, quality | {"assessable": False}, PANEL) == []


def test_controls_are_not_followed():
    slide = a_slide(np.random.default_rng(0))
    assert drift_rows(an_entry(kind="spiked"), *slide, PANEL) == drift_rows(an_entry(kind="blank"), *slide, PANEL) == []
    assert drift_rows(an_entry(kind="donor"), *slide, PANEL)


@given(st.sampled_from(["arcsinh", "log", "certainty", "share"]), st.floats(0.001, 0.999))
def test_scales_lead_back_to_where_they_came_from(scale, value):
    assert from_scale(scale, to_scale(scale, value)) == pytest.approx(value, abs=1e-9)
    low, high = ratio_limits(scale, float(to_scale(scale, value)), 1.5)
    assert low <= to_scale(scale, value) <= high


# --- the reference


def test_a_reference_is_json_and_has_every_figure(reference):
    assert json.loads(json.dumps(reference)) == reference
    assert {key.partition("/")[0] for key in reference["figures"]} == set(FIGURES)
    assert reference["slides"] == 40
    assert reference["figures"]["leukocyte_snr/leukocyte"]["centre"] == pytest.approx(10.0, rel=0.02)
    assert reference["figures"]["noise/nucleus"]["spread"] == 0


def test_too_few_slides_make_no_reference_and_unassessable_ones_do_not_count():
    rng = np.random.default_rng(0)
    slides = [a_slide(rng) for _ in range(4)]
    poor = [(cells, quality | {"assessable": False}) for cells, quality in slides]
    made = make_reference([*slides, *poor], PANEL, simulated=False)
    assert made["figures"] == {}
    assert made["slides"] == 4


def test_spread_between_slides_is_what_their_cells_do_not_explain():
    """The random-effects variance of DerSimonian and Laird's own formula, worked by hand."""
    values, within = np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.2, 0.2])
    weights = 1 / within
    q = (weights * (values - np.average(values, weights=weights)) ** 2).sum()
    expected = (q - 2) / (weights.sum() - (weights**2).sum() / weights.sum())
    assert between_slides(values, within) == pytest.approx(np.sqrt(expected))
    assert between_slides(np.array([1.0, 1.1]), np.array([1.0, 1.0])) == 0
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 0.2, 4000) + rng.normal(0, 0.3, 4000)
    assert between_slides(drawn, np.full(4000, 0.09)) == pytest.approx(0.2, abs=0.02)


def test_a_panel_of_other_roles_is_compared_by_stains_and_sizes_and_another_camera_without_grey_levels(reference):
    three = [str(channel.role) for channel in load_panel("epithelial-3").channels]
    keys = comparable(reference, three, simulated=False)
    assert "leukocyte_snr/epithelial" in keys
    assert not {key for key in keys if key.startswith(("noise", "background", "mean_", "artefact"))}
    assert comparable(reference, ROLES[PANEL.name], simulated=True) == set(reference["figures"])


# --- the alarm


def test_batches_like_training_sound_no_alarm(reference):
    table = judge_drift(rows_of([{}] * 40), reference, True)
    assert list(table.columns) == list(DRIFT_COLUMNS)
    assert alarms_of(table) == {}
    assert (table["against"] == "training").all()
    judged = table[table["figure"] != "ctc_share"]
    assert not (judged["low"] >= judged["expected"]).any()
    assert not (judged["expected"] >= judged["high"]).any()
    assert judged[["low", "high"]].notna().any(axis=1).all()


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ({"cd45": 0.4}, "leukocyte_snr/cd45"),
        ({"ck": 5.0}, "leukocyte_snr/ck"),
        ({"size": 1.15}, "leukocyte_diameter_um"),
        ({"artefact": 0.08}, "artefact_share"),
        ({"doubt": 8.0}, "mean_entropy"),
    ],
)
def test_a_batch_that_is_off_is_named_with_what_is_off_and_no_other(reference, change, figure):
    table = judge_drift(rows_of([{}, {}, change, {}]), reference, True)
    assert set(alarms_of(table)) == {"B02"}
    assert figure in alarms_of(table)["B02"]
    off = table[(table["batch"] == "B02") & (table["alarm"] == "batch")].iloc[0]
    assert not off["low"] <= off["batch_value"] <= off["high"]


def test_less_doubt_than_in_training_is_no_alarm_and_its_limit_has_one_side(reference):
    table = judge_drift(rows_of([{"doubt": 0.1}], slides=4), reference, True)
    assert alarms_of(table) == {}
    sure = table[table["figure"] == "mean_top_probability"].iloc[0]
    assert sure["low"] < sure["expected"] < sure["batch_value"]
    assert np.isnan(sure["high"])


def test_what_is_certain_but_of_no_consequence_is_no_alarm(reference):
    many = rows_of([{"cd45": 0.9}], slides=12)
    assert alarms_of(judge_drift(many, reference, True)) == {}


def test_a_small_drift_that_lasts_sounds_by_the_run_of_three_and_starts_anew_after_it(reference):
    loose = {**reference, "figures": {key: {**value, "spread": 0.25} if key == "leukocyte_snr/leukocyte" else value
                                      for key, value in reference["figures"].items()}}  # fmt: skip
    table = judge_drift(rows_of([{"cd45": 0.5}] * 4, slides=1), loose, True)
    cd45 = table[(table["figure"] == "leukocyte_snr") & (table["channel"] == "cd45")]
    assert cd45["alarm"].tolist() == ["", "", "run of three", ""]


def test_the_share_of_ctcs_is_shown_and_never_judged(reference):
    rng = np.random.default_rng(3)
    rows = drift_rows(an_entry(), *a_slide(rng, cells=900, ctc=200), PANEL)
    share = judge_drift(rows, reference, True).set_index("figure").loc["ctc_share"]
    assert share["alarm"] == ""
    assert np.isnan(share["low"])
    assert share["expected"] == pytest.approx(0.01, rel=0.1)


def test_two_sites_with_one_batch_number_are_two_batches(reference):
    rows = rows_of([{}], site="Riga") + rows_of([{"cd45": 0.4}], seed=1, site="Turku")
    table = judge_drift(rows, reference, True)
    assert set(table.loc[table["alarm"] != "", "site"]) == {"Turku"}


@settings(max_examples=5)
@given(st.permutations(range(5)))
def test_the_order_of_the_rows_does_not_matter(reference, order):
    rows = rows_of([{}, {}, {"cd45": 0.4}, {}, {}], slides=1)
    by_slide = [[row for row in rows if row["batch"] == f"B{number:02}"] for number in order]
    shuffled = judge_drift([row for part in by_slide for row in part], reference, True)
    plain = judge_drift(rows, reference, True)
    keys = ["slide_id", "figure", "channel"]
    assert shuffled.sort_values(keys, ignore_index=True).equals(plain.sort_values(keys, ignore_index=True))


def test_without_a_reference_batches_are_compared_with_one_another():
    rows = rows_of([{}, {}, {"size": 1.2}, {}, {}, {}, {}], slides=4)
    table = judge_drift(rows, None, True)
    assert alarms_of(table) == {"B02": {"leukocyte_diameter_um"}}
    assert (table[table["figure"] == "leukocyte_snr"]["against"] == "").all()
    few = judge_drift(rows_of([{}, {}, {"size": 1.2}, {}]), None, True)
    assert (few["against"] == "").all()
    assert alarms_of(few) == {}


def test_nothing_measured_is_an_empty_table(reference):
    for known in (reference, None):
        table = judge_drift([], known, True)
        assert table.empty
        assert list(table.columns) == list(DRIFT_COLUMNS)


def test_a_reference_of_an_older_version_is_used_as_far_as_it_goes(reference):
    older = {**reference, "figures": {key: value for key, value in reference["figures"].items() if "snr" in key}}
    older["figures"]["something_new"] = {"centre": 1.0, "spread": 0.1, "one_cell": 0.0, "slides": 40}
    table = judge_drift(rows_of([{"cd45": 0.4}]), older, True)
    assert alarms_of(table) == {"B00": {"leukocyte_snr/cd45"}}
    assert (table[table["figure"] == "mean_entropy"]["against"] == "").all()
