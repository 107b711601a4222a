"""Median, restricted mean, late entry and interval censoring agree with books, and say what they can't know."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter, WeibullFitter
from lifelines.statistics import multivariate_logrank_test

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.interval_censored import recurrence_intervals, turnbull
from ctc_imaging.recurrence.interval_parametric import fit_interval_censored
from ctc_imaging.recurrence.product_limit import logrank, product_limit, restricted_mean_difference
from ctc_imaging.recurrence.survival import kaplan_meier, restricted_differences

INF = np.inf
# Months to cosmetic deterioration after radiotherapy for breast cancer (Finkelstein and Wolfe, Biometrics 1985;41:933).
RADIOTHERAPY = [
    *[(0, 7), (0, 8), (0, 5), (4, 11), (5, 12), (5, 11), (6, 10), (7, 16), (7, 14), (11, 15), (11, 18), (15, INF)],
    *[(17, INF), (17, 25), (17, 25), (18, INF), (19, 35), (18, 26), (22, INF), (24, INF), (24, INF), (25, 37)],
    *[(26, 40), (27, 34), (32, INF), (33, INF), (34, INF), (36, 44), (36, 48), (36, INF), (36, INF), (37, 44)],
    *[(37, INF), (37, INF), (37, INF), (38, INF), (40, INF), (45, INF)],
    *[(46, INF)] * 8,
]


def random_follow_up(seed, size):
    rng = np.random.default_rng(seed)
    stop, event = rng.integers(1, 20, size).astype(float), rng.random(size) < 0.6
    return stop, event, rng.integers(0, 3, size), np.maximum(0.0, stop - rng.integers(1, 10, size))


def test_hcc_resection_median_and_restricted_mean(shared_data):
    table = pd.read_csv(shared_data / "hcc_resection" / "hepatoCellular.csv")
    everyone = kaplan_meier(table["RFS"], table["Recurrence"], horizon_days=24)
    assert everyone.median == (19, 14, 26)
    assert (everyone.n, everyone.events) == (227, 143)
    assert [100 * value for value in everyone.rfs_horizon] == pytest.approx([45.0, 38.4, 51.4], abs=0.05)
    for month, published in {12: 59.9, 24: 45.0, 60: 34.4}.items():
        curve = kaplan_meier(table["RFS"], table["Recurrence"], horizon_days=month)
        assert 100 * curve.rfs_horizon[0] == pytest.approx(published, abs=0.05)
    invaded, free = (
        product_limit(rows["RFS"], rows["Recurrence"]).restricted_mean(24)
        for rows in (table[table["Vascularinvasion"] == value] for value in (1, 0))
    )
    assert (invaded[0], free[0]) == pytest.approx((11.470, 16.403), abs=5e-4)
    difference, p = restricted_mean_difference(invaded, free)
    assert difference == pytest.approx((-4.933, -8.154, -1.712), abs=5e-4)
    assert p == pytest.approx(0.0027, abs=5e-5)


@given(seed=st.integers(0, 10_000), size=st.integers(5, 60))
def test_curves_and_tests_equal_those_of_lifelines(seed, size):
    stop, event, group, start = random_follow_up(seed, size)
    # lifelines refuses a risk set that empties early on, so most are there from the beginning.
    start[: size - 2] = 0.0
    for entry in (None, start):
        ours = product_limit(stop, event, entry)
        theirs = KaplanMeierFitter().fit(stop, event, entry=entry).survival_function_.iloc[:, 0]
        np.testing.assert_allclose(ours.survival, theirs.reindex(ours.times), atol=1e-12)
    chi_square, df = logrank(stop, event, group)
    theirs = multivariate_logrank_test(stop, group, event)
    if np.isfinite(chi_square):
        assert chi_square == pytest.approx(theirs.test_statistic, abs=1e-8)
        assert df == len(set(group)) - 1


@given(seed=st.integers(0, 10_000), size=st.integers(2, 60), factor=st.floats(0.01, 100))
def test_time_units_only_rescale(seed, size, factor):
    stop, event, group, start = random_follow_up(seed, size)
    one, other = product_limit(stop, event, start), product_limit(stop * factor, event, start * factor)
    np.testing.assert_array_equal(one.survival, other.survival)
    np.testing.assert_allclose(np.array(one.median()) * factor, other.median())
    horizon = float(stop.max()) - 0.5
    mean = one.restricted_mean(horizon)
    np.testing.assert_allclose(np.array(mean) * factor, other.restricted_mean(horizon * factor), rtol=1e-9)
    assert 0 <= mean[0] <= horizon
    assert logrank(stop, event, group)[0] == pytest.approx(
        logrank(stop * factor, event, group)[0], nan_ok=True, abs=1e-9
    )


@given(seed=st.integers(0, 10_000), size=st.integers(2, 40))
def test_nobody_enters_or_leaves_where_follow_up_is_cut(seed, size):
    stop, event, _, start = random_follow_up(seed, size)
    middle = (start + stop) / 2
    whole = product_limit(stop, event, start)
    cut = product_limit(np.append(middle, stop), np.append(np.zeros(size, bool), event), np.append(start, middle))
    np.testing.assert_allclose(cut.at(whole.times), whole.survival, atol=1e-12)


def test_restricted_mean_is_the_mean_where_everything_is_seen():
    times = np.array([1.0, 4.0, 6.0, 13.0])
    mean, error = product_limit(times, np.ones(4, bool)).restricted_mean(20.0)
    assert mean == pytest.approx(times.mean())
    assert error == pytest.approx(times.std() / 2)


def test_nothing_is_read_off_beyond_follow_up():
    curve = product_limit([3, 8, 10], [True, False, False])
    assert np.isnan(curve.restricted_mean(11)).all()
    assert np.isnan(curve.median()).tolist() == [True, False, True]
    assert product_limit([3, 8], [True, True]).median().value == 3
    assert product_limit([2, 3, 4, 5], [True, False, True, True]).median()[0] == 4


def test_restricted_mean_covers_the_truth():
    rng = np.random.default_rng(2)
    truth = 1 - np.exp(-1)
    held = []
    for _ in range(400):
        stop, censored = rng.exponential(size=80), rng.uniform(0.2, 4, 80)
        curve = product_limit(np.minimum(stop, censored), stop <= censored)
        mean, error = curve.restricted_mean(1.0)
        held.append(abs(mean - truth) < 1.96 * error)
    assert 0.91 < np.mean(held) < 0.98


def test_days_gained_are_told_against_the_first_group():
    rng = np.random.default_rng(0)
    groups = {
        name: pd.DataFrame({"days": 30 + rng.exponential(mean, 80).clip(max=900), "event": True})
        for name, mean in (("negative", 900), ("positive", 300))
    }
    groups["short"] = pd.DataFrame({"days": [40.0, 50.0], "event": [True, False]})
    (difference,) = restricted_differences(groups, 30, 730)
    assert (difference.group, difference.reference) == ("positive", "negative")
    assert difference.days.low < difference.days.value < difference.days.high < 0
    assert difference.p < 0.001


# Interval censoring


def test_turnbull_as_in_textbooks():
    # Klein and Moeschberger, Survival Analysis, 2003, example 5.2.
    curve = turnbull(*np.array(RADIOTHERAPY, float).T)
    published = {4: 1.0, 6: 0.954, 7: 0.920, 8: 0.832, 12: 0.761, 25: 0.668, 34: 0.586, 40: 0.466, 48: 0.0}
    low, high = curve.bounds(list(published))
    assert low.round(3).tolist() == high.round(3).tolist() == list(published.values())
    inside = curve.bounds(39.0)
    assert inside[0] < inside[1]
    assert len(RADIOTHERAPY) == 46


@given(seed=st.integers(0, 10_000), size=st.integers(2, 60))
def test_turnbull_of_known_times_is_kaplan_meier(seed, size):
    stop, event, _, _ = random_follow_up(seed, size)
    if not event.any():
        return
    curve, expected = turnbull(stop, np.where(event, stop, INF)), product_limit(stop, event)
    for survival in curve.bounds(np.arange(stop.max())):
        np.testing.assert_allclose(survival, expected.at(np.arange(stop.max())), atol=1e-5)


@given(seed=st.integers(0, 10_000), size=st.integers(3, 40))
def test_no_other_distribution_is_likelier(seed, size):
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 10, size).astype(float)
    right = np.where(rng.random(size) < 0.2, INF, left + rng.integers(0, 6, size))
    right[0] = left[0] + 1
    curve = turnbull(left, right)
    exact, inner = left == right, curve.left == curve.right
    covers = (left[:, None] <= curve.left) & (curve.right <= right[:, None])
    covers &= ~((left[:, None] == curve.left) & inner & ~exact[:, None])
    assert curve.mass.sum() == pytest.approx(1)
    assert curve.log_likelihood == pytest.approx(np.log(covers @ curve.mass).sum(), abs=1e-9)
    for _ in range(20):
        other = 0.99 * curve.mass + 0.01 * rng.dirichlet(np.ones(len(curve.mass)))
        assert np.log(covers @ other).sum() <= curve.log_likelihood + 1e-6


def visits_of(rng, size, covariate_effect=0.0):
    """Events between the visits of each subject's own grid."""
    x = rng.normal(size=size)
    event = 600 * (rng.exponential(size=size) / np.exp(covariate_effect * x)) ** (1 / 1.5)
    grid = np.sort(rng.uniform(0, 1200, (size, 6)), axis=1)
    grid = np.column_stack([np.zeros(size), grid, np.full(size, INF)])
    place = (grid < event[:, None]).sum(axis=1) - 1
    rows = np.arange(size)
    return pd.DataFrame({"left": grid[rows, place], "right": grid[rows, place + 1], "x": x})


def test_weibull_of_intervals_equals_that_of_lifelines():
    rows = visits_of(np.random.default_rng(1), 200)
    ours = fit_interval_censored(rows, left="left", right="right")
    theirs = WeibullFitter().fit_interval_censoring(rows["left"] + 1e-9, rows["right"])
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood_, abs=1e-3)
    assert ours.survival([300, 600])["survival"].tolist() == pytest.approx(
        theirs.survival_function_at_times([300, 600]).tolist(), abs=1e-4
    )


def test_limits_of_interval_censored_curves_and_ratios_hold_the_truth():
    rng = np.random.default_rng(7)
    held = []
    for _ in range(60):
        rows = visits_of(rng, 150, 0.5)
        for options in ({"baseline": "weibull"}, {"baseline": "piecewise", "knots": [200, 400, 700]}):
            fit = fit_interval_censored(rows, left="left", right="right", terms="x", **options)
            curve = fit.survival([500], pd.DataFrame({"x": [0.0]})).iloc[0]
            ratio = fit.table().iloc[0]
            held.append(
                [
                    curve["low"] < np.exp(-((500 / 600) ** 1.5)) < curve["high"],
                    ratio["low"] < np.exp(0.5) < ratio["high"],
                ]
            )
    assert ((np.mean(held, axis=0) > 0.9) & (np.mean(held, axis=0) < 0.995)).all()


@given(factor=st.floats(0.001, 1000))
def test_units_of_time_dont_matter_for_intervals(factor):
    rows = visits_of(np.random.default_rng(3), 80, 0.5)
    stretched = rows.assign(left=rows["left"] * factor, right=rows["right"] * factor)
    one, other = (fit_interval_censored(table, left="left", right="right", terms="x") for table in (rows, stretched))
    np.testing.assert_allclose(one.table()["coefficient"], other.table()["coefficient"], atol=1e-6)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-6)
    np.testing.assert_allclose(one.survival([400.0]), other.survival([400.0 * factor]), atol=1e-6)


def test_known_times_have_their_density():
    rows = pd.DataFrame({"left": [1.0, 2.0, 5.0, 7.0], "right": [1.0, 2.0, 5.0, INF]})
    fit = fit_interval_censored(rows, left="left", right="right", baseline="piecewise")
    rate = 3 / 15
    assert fit.log_likelihood == pytest.approx(3 * np.log(rate) - 15 * rate)
    assert fit.survival([4.0])["survival"].iloc[0] == pytest.approx(np.exp(-4 * rate))


@pytest.mark.parametrize(
    ("left", "right", "fault"),
    [
        ([5.0], [3.0], "1 interval\\(s\\) end before they begin"),
        ([np.nan], [3.0], "a bound of an interval is missing"),
        ([-1.0], [3.0], "an interval begins before time 0"),
        ([1.0], [INF], "nobody has the event"),
    ],
)
def test_intervals_that_make_no_sense_are_named(left, right, fault):
    with pytest.raises(StatisticsError, match=fault):
        turnbull(left, right)


def test_parameters_that_data_dont_hold_are_refused():
    rows = pd.DataFrame({"left": [1.0, 2.0, 5.0], "right": [2.0, 3.0, 6.0]})
    with pytest.raises(StatisticsError, match="the curve's parameters can't be estimated"):
        fit_interval_censored(rows, left="left", right="right", baseline="piecewise", knots=[0.5, 20.0])


def test_recurrence_lies_between_the_scans_around_it():
    day = lambda number: pd.Timestamp("2020-01-01") + pd.Timedelta(days=number)  # noqa: E731
    clinical = pd.DataFrame(
        [
            {"patient_id": "seen", "recurrence_date": day(210), "death_date": pd.NaT, "last_contact_date": day(400)},
            {"patient_id": "scan", "recurrence_date": day(300), "death_date": pd.NaT, "last_contact_date": day(400)},
            {"patient_id": "free", "recurrence_date": pd.NaT, "death_date": pd.NaT, "last_contact_date": day(900)},
            {"patient_id": "dead", "recurrence_date": pd.NaT, "death_date": day(500), "last_contact_date": day(500)},
            {"patient_id": "none", "recurrence_date": pd.NaT, "death_date": pd.NaT, "last_contact_date": day(80)},
        ]
    ).assign(surgery_date=day(0))
    scans = [("seen", 90, "negative"), ("seen", 180, "equivocal"), ("seen", 240, "positive"), ("seen", 270, "negative")]
    scans += [("scan", 100, "negative"), ("scan", 250, "positive"), ("free", 600, "negative"), ("dead", 90, "negative")]
    imaging = pd.DataFrame(scans, columns=["patient_id", "day", "result"])
    intervals, notes = recurrence_intervals(clinical, imaging.assign(imaging_date=imaging["day"].map(day)))
    assert intervals.to_dict("index") == {
        "seen": {"left": 90.0, "right": 210.0},
        "scan": {"left": 100.0, "right": 250.0},
        "free": {"left": 600.0, "right": INF},
        "dead": {"left": 90.0, "right": INF},
    }
    assert notes == ["1 patient(s) without a scan that says anything are left out."]
