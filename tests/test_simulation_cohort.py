"""A simulated cohort: the contract's tables, patients whose recurrence follows their burden, the same bytes always."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from ctc_imaging.cohort import load_clinical, load_cohort, load_imaging, load_schedule
from ctc_imaging.counting import COUNT_COLUMNS
from ctc_imaging.errors import ConfigError
from ctc_imaging.files import sha256_file
from ctc_imaging.simulation import simulate_cohort
from ctc_imaging.simulation.patients import (
    HAZARD,
    VISITS,
    draw_counts,
    draw_follow_up,
    draw_patients,
    draw_recurrence,
    draw_visits,
    true_burden,
)

SMALL = {"shape_px": (256, 256), "leukocytes": 10}


@pytest.fixture(scope="module")
def people():
    return draw_patients(1500, np.random.default_rng(0))


@pytest.fixture(scope="module")
def follow_up(people):
    return draw_follow_up(people, np.random.default_rng(1))


@pytest.fixture(scope="module")
def visits(people, follow_up):
    return draw_visits(people, follow_up, np.random.default_rng(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort with pixels."""
    out = tmp_path_factory.mktemp("cohort")
    simulate_cohort(out, patients=8, seed=1, **SMALL)
    return out


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A cohort without pixels."""
    out = tmp_path_factory.mktemp("tables")
    simulate_cohort(out, patients=120, seed=1, tables_only=True)
    return out


def relapse_free(follow_up):
    """Months to recurrence or death, and whether it came."""
    event = np.fmin(follow_up.recurrence, follow_up.death)
    seen = ~np.isnan(event)
    return np.where(seen, event, follow_up.last_contact) / 30.44, seen


def test_recurrence_free_survival_is_near_that_of_real_resections(follow_up):
    """227 patients of hcc_resection: 73.1, 59.9, 45.0, 39.2, 34.4 % at 6, 12, 24, 36, 60 months."""
    curve = KaplanMeierFitter().fit(*relapse_free(follow_up))
    simulated = [float(curve.predict(month)) for month in (6, 12, 24, 36, 60)]
    assert simulated == pytest.approx([0.731, 0.599, 0.450, 0.392, 0.344], abs=0.08)


def test_counts_before_surgery_are_as_dispersed_as_cellsearch_without_residual_disease(people, visits):
    """Mean 1.13 and k .44 solve Yu 2018's positive rate and mean (CellSearch)."""
    pre = visits[visits["visit"] == "pre"]
    residual = people["residual"].to_numpy()[pre["patient"]]
    counts = draw_counts(pre["true_burden"].to_numpy(), 5.0, np.random.default_rng(3))
    cured, left = counts[~residual], counts[residual]
    assert cured.mean() == pytest.approx(1.13, abs=0.25)
    assert cured.mean() ** 2 / (cured.var() - cured.mean()) == pytest.approx(0.44, abs=0.15)
    assert (cured == 0).mean() > 0.45
    assert left.mean() > 3 * cured.mean()
    assert left.var() > 3 * left.mean()


def test_counts_grow_with_the_volume():
    burden = np.full(20_000, 2.0)
    small, large = (draw_counts(burden, volume, np.random.default_rng(0)).mean() for volume in (5.0, 7.5))
    assert (small, large) == pytest.approx((2.0, 3.0), rel=0.03)


def test_burden_falls_after_surgery_in_the_cured_and_stays_in_the_others(people):
    days = np.array([-3.0, 30.0, 365.0])
    burden = true_burden(people, days)
    cured = ~people["residual"].to_numpy()
    assert (burden[cured, 1] <= burden[cured, 0]).all()
    assert np.median(burden[cured, 1] / burden[cured, 0]) < 0.15
    assert np.median(burden[~cured, 1]) > 1
    assert np.median(burden[~cured, 2] / burden[~cured, 1]) > 1.2


def test_adjuvant_treatment_lowers_the_burden(people):
    treated = people[people["adjuvant_kind"] == "TACE"]
    burden = true_burden(treated, np.array([27.0, 60.0]))
    assert (burden[:, 1] < burden[:, 0]).mean() > 0.95


def test_hazard_rises_with_burden_and_with_microvascular_invasion():
    burden = np.linspace(0, 50, 20)
    hazard = HAZARD.per_year(np.array(100.0), burden, np.array(0.0))
    assert (np.diff(hazard) > 0).all()
    assert HAZARD.per_year(np.array(100.0), np.array(2.0), np.array(1.0)) > HAZARD.per_year(
        np.array(100.0), np.array(2.0), np.array(0.0)
    )


def test_a_cox_model_finds_the_hazard_ratios_that_were_put_in(people):
    """With the true burden at one month, which hardly changes in the cured and slowly in the others."""
    day = draw_recurrence(people, np.random.default_rng(5))
    data = pd.DataFrame(
        {
            "day": np.minimum(day, 700.0),
            "event": day <= 700,
            "burden": np.log1p(true_burden(people, np.array([40.0]))[:, 0]),
            "mvi": people["MVI"],
        }
    )
    fitted = CoxPHFitter().fit(data[data["day"] > 40], "day", "event").params_
    assert fitted["burden"] == pytest.approx(HAZARD.log_hr_burden, rel=0.25)
    assert fitted["mvi"] == pytest.approx(HAZARD.log_hr_mvi, rel=0.4)


def test_recurrence_is_found_at_the_first_scan_after_it(follow_up):
    positive = follow_up.imaging[follow_up.imaging["result"] == "positive"]
    assert positive["patient"].is_unique
    np.testing.assert_array_equal(follow_up.recurrence[positive["patient"]], positive["day"])
    lag = positive["day"].to_numpy() - follow_up.true_recurrence[positive["patient"]]
    assert (lag >= 0).all()
    assert 20 < np.median(lag) < 90
    last = follow_up.imaging.groupby("patient")["day"].max()
    np.testing.assert_array_equal(last[positive["patient"]], positive["day"])


def test_dates_come_in_an_order_that_can_be(follow_up):
    found = ~np.isnan(follow_up.recurrence)
    died = ~np.isnan(follow_up.death)
    assert (follow_up.recurrence[found] <= follow_up.last_contact[found]).all()
    np.testing.assert_array_equal(follow_up.death[died], follow_up.last_contact[died])
    without = died & ~found
    assert 0 < without.sum() < 0.2 * died.sum()
    assert ((follow_up.site != "") == found).all()


def test_no_blood_is_drawn_after_recurrence_or_death_and_some_visits_are_missed(follow_up, visits):
    end = np.fmin(follow_up.recurrence, follow_up.last_contact)
    assert (visits["day"].to_numpy() <= end[visits["patient"]]).all()
    missed = ~visits["done"]
    assert missed[visits["visit"] == "pre"].sum() == 0
    assert missed[visits["visit"] != "pre"].mean() == pytest.approx(0.06, abs=0.02)


def test_visits_keep_to_their_windows(visits):
    for visit in VISITS:
        days = visits["day"][visits["visit"] == visit.name]
        assert days.between(visit.day - visit.early_days, visit.day + visit.late_days).all()


def test_the_cohort_reads_as_a_laboratory_s_own(folder):
    entries = load_cohort(folder / "cohort.csv")
    clinical = load_clinical(folder / "clinical.csv")
    imaging = load_imaging(folder / "imaging.csv")
    assert len(clinical) == 8
    assert {"MVI", "AFP", "BCLC", "size_cm"} <= set(clinical.columns)
    assert set(imaging["patient_id"]) <= set(clinical["patient_id"])
    assert [visit.name for visit in load_schedule(folder / "schedule.yaml").visits] == [v.name for v in VISITS]
    assert all(entry.slide.is_file() for entry in entries)
    assert all((folder / "truth" / f"{entry.slide_id}.csv").is_file() for entry in entries)


def test_the_cohort_has_controls_a_pooled_sample_and_a_rescan(folder):
    entries = load_cohort(folder / "cohort.csv")
    kinds = [entry.sample_kind for entry in entries if entry.sample_kind != "patient"]
    assert sorted(kinds) == ["blank", "donor", "spiked"]
    assert [entry.spiked_cells for entry in entries if entry.sample_kind == "spiked"] == [20]
    rescans = [entry for entry in entries if entry.rescan_of]
    assert len(rescans) == 1
    pooled = [entry for entry in entries if entry.volume_on_slide_ml == 2.5]
    assert len(pooled) == 2
    assert pooled[0].sample_id == pooled[1].sample_id


def test_controls_hold_what_they_should(folder):
    found = {
        kind: (pd.read_csv(folder / "truth" / f"control-{kind}-1.csv")["class"] == "ctc").sum()
        for kind in ("blank", "donor", "spiked")
    }
    assert found["blank"] == found["donor"] == 0
    assert 10 <= found["spiked"] <= 20


def test_the_slides_hold_the_ctcs_of_the_truth_table(folder):
    truth = pd.read_csv(folder / "truth" / "patients.csv")
    truth = truth[truth["done"]].set_index(["patient_id", "visit"])["ctc"]
    found: dict[tuple[str, str], int] = {}
    for entry in load_cohort(folder / "cohort.csv"):
        if entry.sample_kind == "patient" and not entry.rescan_of:
            key = (entry.patient_id, entry.sample_id.removeprefix(f"{entry.patient_id}-"))
            ctc = (pd.read_csv(folder / "truth" / f"{entry.slide_id}.csv")["class"] == "ctc").sum()
            found[key] = found.get(key, 0) + int(ctc)
    assert found == truth.to_dict()


def test_one_slide_is_badly_out_of_focus_from_eight_patients_on(monkeypatch, tmp_path):
    from ctc_imaging.simulation import cohort

    offsets = []
    monkeypatch.setattr(cohort._SlideJob, "run", lambda job: offsets.append(job.setting.focus_offset_um))
    simulate_cohort(tmp_path / "many", patients=8)
    assert [offset for offset in offsets if offset] == [cohort.BAD_FOCUS_UM]
    offsets.clear()
    simulate_cohort(tmp_path / "few", patients=7)
    assert not any(offsets)


def test_truth_names_burden_and_hazard_per_patient_and_visit(folder):
    truth = pd.read_csv(folder / "truth" / "patients.csv")
    assert not truth.duplicated(["patient_id", "visit"]).any()
    wanted = {
        "true_burden",
        "ctc",
        "residual",
        "log_hr_burden",
        "log_hr_mvi",
        "baseline_per_year",
        "true_recurrence_day",
    }
    assert wanted <= set(truth.columns)
    assert truth["patient_id"].nunique() == 8


def test_two_workers_write_the_same_bytes_as_one_and_report_progress(tmp_path):
    steps: list[tuple[int, int]] = []
    options = {"patients": 1, "seed": 4, "controls": False, **SMALL}
    simulate_cohort(tmp_path / "one", workers=1, **options)
    simulate_cohort(tmp_path / "two", workers=2, progress=lambda done, total: steps.append((done, total)), **options)
    assert sha256_file(tmp_path / "one") == sha256_file(tmp_path / "two")
    assert steps == [(number, len(steps)) for number in range(1, len(steps) + 1)]


def test_without_controls_there_are_only_patients(tmp_path):
    simulate_cohort(tmp_path, patients=3, controls=False, tables_only=True)
    assert set(pd.read_csv(tmp_path / "cohort.csv")["sample_kind"]) == {"patient"}


def test_three_hundred_patients_without_pixels_take_under_three_seconds(tmp_path):
    start = time.perf_counter()
    simulate_cohort(tmp_path, patients=300, tables_only=True)
    assert time.perf_counter() - start < 3
    assert not (tmp_path / "slides").exists()


def test_tables_only_gives_the_contract_s_counts(tables):
    counts = pd.read_csv(tables / "counts.csv")
    assert list(counts.columns) == list(COUNT_COLUMNS)
    samples = pd.read_csv(tables / "cohort.csv")
    assert list(counts["sample_id"]) == list(samples["sample_id"])
    done = counts[counts["assessable"]]
    parts = done[["ctc_epithelial", "ctc_hybrid", "ctc_mesenchymal", "ctc_undetermined"]].sum(axis=1)
    assert (parts == done["ctc"]).all()
    assert (done["cells"] == done[["leukocyte", "artefact", "indeterminate", "ctc"]].sum(axis=1)).all()
    assert done["ctc_per_ml"].between(done["ctc_per_ml_low"], done["ctc_per_ml_high"]).all()


def test_a_sample_that_is_not_assessable_has_a_reason_and_no_counts(tables):
    counts = pd.read_csv(tables / "counts.csv")
    failed = counts[~counts["assessable"]]
    assert 0 < len(failed) < 0.1 * len(counts)
    assert failed[["ctc", "cells", "ctc_per_ml", "assessed_volume_ml"]].isna().all(axis=None)
    assert failed["quality_reasons"].notna().all()


def test_the_same_seed_gives_the_same_tables(tables, tmp_path):
    simulate_cohort(tmp_path, patients=120, seed=1, tables_only=True)
    assert sha256_file(tmp_path) == sha256_file(tables)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0},
        {"workers": 0},
        {"leukocytes": -1},
        {"setting": "none"},
        {"seed": -1},
        {"leukocytes": 10**5},
        {"shape_px": (9, 9)},
    ],
)
def test_an_option_without_meaning_is_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(ConfigError):
        simulate_cohort(tmp_path / "out", **({"patients": 1} | wrong))
    assert not (tmp_path / "out").exists()
