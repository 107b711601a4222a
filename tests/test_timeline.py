"""A patient's course says what was found and when, and never reads a missing sample as a negative one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ctc_imaging.cohort import Schedule, Visit
from ctc_imaging.counting import COUNT_COLUMNS
from ctc_imaging.panel import CutOff
from ctc_imaging.timeline import TIMELINE_COLUMNS, build_timeline, change_p_value, patterns_at

SURGERY = pd.Timestamp("2024-01-10")
CUTOFF = CutOff(ctc=2, volume_ml=5, assay="CanPatrol", source="Guo 2018")
PATTERN_NAMES = {"persistently_negative", "turned_positive", "turned_negative", "persistently_positive"}


def sample(day, ctc, patient="A", kind="patient", blood_ml=5.0, assessed_ml=None):
    """One row of counts; ctc None is a sample that isn't assessable."""
    date = (SURGERY + pd.Timedelta(days=day)).date().isoformat()
    volume = (blood_ml if assessed_ml is None else assessed_ml) if ctc is not None else None
    return {
        "sample_id": f"{patient}_{date}",
        "patient_id": patient,
        "sample_date": date,
        "sample_kind": kind,
        "slides": 1,
        "blood_volume_ml": blood_ml,
        "assessed_volume_ml": volume,
        "assessable": ctc is not None,
        "ctc": ctc,
        "ctc_per_ml": None if ctc is None else ctc / volume,
    }


def counts(*rows):
    return pd.DataFrame(rows, columns=list(COUNT_COLUMNS))


def clinical(patient="A", recurrence=None, death=None, last_contact=730):
    days = {"surgery": 0, "recurrence": recurrence, "death": death, "last_contact": last_contact}
    dates = {f"{name}_date": [pd.NaT if d is None else SURGERY + pd.Timedelta(days=d)] for name, d in days.items()}
    return pd.DataFrame({"patient_id": [patient], **dates})


def timeline(*rows, schedule=None, cutoff=CUTOFF, patients=None, **options):
    return build_timeline(counts(*rows), clinical() if patients is None else patients, schedule, cutoff, **options)


def test_columns_are_the_contracts():
    assert list(timeline(sample(0, 1)).columns) == list(TIMELINE_COLUMNS)
    assert TIMELINE_COLUMNS[:3] == ("patient_id", "day", "visit_status")
    assert set(COUNT_COLUMNS) < set(TIMELINE_COLUMNS)
    assert list(build_timeline(counts(), clinical(), None, CUTOFF).columns) == list(TIMELINE_COLUMNS)


def test_rows_are_ordered_by_patient_and_day_since_surgery():
    rows = [sample(30, 1), sample(-3, 1), sample(7, 1, "B"), sample(7, None)]
    table = timeline(*rows, patients=pd.concat([clinical(), clinical("B")]))
    assert table["patient_id"].tolist() == ["A", "A", "A", "B"]
    assert table["day"].tolist() == [-3, 7, 30, 7]
    assert table["visit_status"].tolist() == ["done", "not_assessable", "done", "done"]


def test_controls_stay_out():
    table = timeline(sample(-3, 1), sample(0, 9, kind="blank"), sample(0, 9, patient="", kind="donor"))
    assert table["sample_kind"].tolist() == ["patient"]


def test_without_clinical_table_day_0_is_the_first_sample_and_it_says_so():
    rows = [sample(-3, 3), sample(27, 0), sample(7, 1, "B")]
    table = build_timeline(counts(*rows), None, Schedule((Visit("a", 90, 1, 1),)), CUTOFF)
    assert table["day"].tolist() == [0, 30, 0]
    assert table["pattern"].isna().all()
    assert table["status"].tolist() == ["positive", "negative", "negative"]
    assert any("Day 0 is each patient's first sample" in note for note in table.attrs["notes"])
    assert any("Missed visits aren't shown" in note for note in table.attrs["notes"])


def test_a_patient_without_clinical_row_has_no_day_and_a_note():
    table = timeline(sample(-3, 3), sample(7, 3, "B"))
    assert table["day"].tolist() == [-3, pd.NA]
    assert "1 patient(s) with samples aren't in the clinical table and have no day." in table.attrs["notes"]


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (sample(0, 2), "positive"),
        (sample(0, 1), "negative"),
        (sample(0, 0), "negative"),
        (sample(0, None), None),
        (sample(0, 1, blood_ml=7.5), None),
        (sample(0, 9, blood_ml=7.5), None),
        (sample(0, 2, assessed_ml=1.0), "positive"),
        (sample(0, 0, assessed_ml=1.0), None),
    ],
)
def test_status_is_by_the_cutoff_in_its_own_volume_only(row, status):
    table = timeline(row)
    found = table.loc[0, "status"]
    assert found == status if status else pd.isna(found)
    if status is None and row["assessable"]:
        assert any("1 sample(s)" in note for note in table.attrs["notes"])


def test_without_cutoff_there_is_no_status_and_a_note():
    table = timeline(sample(0, 9), cutoff=None)
    assert table["status"].isna().all()
    assert table.attrs["notes"] == ["Samples have no status: the panel has no cut-off."]


@pytest.mark.parametrize(("before", "last_same", "first_other"), [(0, 5, 6), (1, 7, 8), (5, 14, 15)])
def test_change_needs_this_many_at_equal_volumes(before, last_same, first_other):
    table = timeline(sample(-3, before), sample(30, last_same), sample(60, before), sample(90, first_other))
    assert table["change"].tolist()[1:] == ["not_distinguishable", "not_distinguishable", "rise"]
    assert timeline(sample(-3, first_other), sample(30, before))["change"].tolist()[1:] == ["fall"]


def test_change_is_against_the_last_done_sample_and_the_first_has_none():
    table = timeline(sample(-3, 0), sample(7, None), sample(30, 6), sample(60, 6, assessed_ml=0.5))
    assert table["change"].isna().tolist() == [True, True, False, False]
    assert table["change"].tolist()[2:] == ["rise", "rise"]


@given(before=st.integers(0, 40), after=st.integers(0, 40), volumes=st.tuples(*[st.floats(0.2, 10)] * 2))
def test_change_is_twice_the_smaller_binomial_tail(before, after, volumes):
    share = volumes[1] / sum(volumes)
    p = change_p_value(before, volumes[0], after, volumes[1])
    tails = (
        [binomtest(after, before + after, share, side).pvalue for side in ("less", "greater")]
        if before + after
        else [1]
    )
    assert p == pytest.approx(min(1, 2 * min(tails)))
    assert p == pytest.approx(change_p_value(after, volumes[1], before, volumes[0]))


@given(rate=st.floats(0.05, 4), volumes=st.tuples(*[st.floats(0.5, 8)] * 2))
def test_change_is_seen_without_one_in_at_most_5_of_100(rate, volumes):
    rng = np.random.default_rng(1)
    drawn = [rng.poisson(rate * volume, 4000) for volume in volumes]
    false = (change_p_value(drawn[0], volumes[0], drawn[1], volumes[1]) < 0.05).mean()
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


SCHEDULE = Schedule((Visit("before", -3, 10, 2), Visit("1 week", 7, 3, 3), Visit("6 months", 183, 14, 14)))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({}, "missed"),
        ({"recurrence": 100}, "not_due"),
        ({"last_contact": 100}, "not_due"),
        ({"death": 100, "last_contact": 100}, "not_due"),
        ({"recurrence": 200}, "missed"),
    ],
)
def test_a_planned_visit_without_sample_is_missed_or_not_due(outcome, expected):
    table = timeline(sample(-5, 1), sample(9, None), schedule=SCHEDULE, patients=clinical(**outcome))
    assert table["visit_status"].tolist() == ["done", "not_assessable", expected]
    missed = table.iloc[2]
    assert missed["day"] == 183
    assert missed[["ctc", "ctc_per_ml", "status", "change", "sample_id", "assessed_volume_ml"]].isna().all()
    assert not missed["assessable"]


@pytest.mark.parametrize(
    ("before", "after", "pattern"),
    [
        (0, 0, "persistently_negative"),
        (0, 2, "turned_positive"),
        (2, 0, "turned_negative"),
        (2, 2, "persistently_positive"),
    ],
)
def test_the_four_patterns(before, after, pattern):
    table = timeline(sample(-3, before), sample(7, 5 - after), sample(30, after), sample(31, 9 - after))
    assert table["pattern"].unique().tolist() == [pattern]


@pytest.mark.parametrize(
    "rows",
    [
        [sample(-3, 2)],
        [sample(7, 2), sample(30, 2)],
        [sample(-3, 2), sample(31, 2)],
        [sample(-3, 2), sample(30, None)],
        [sample(-3, None), sample(30, 2)],
        [sample(-3, 2), sample(30, 2, blood_ml=7.5)],
    ],
)
def test_no_pattern_without_a_status_on_both_sides_of_surgery(rows):
    assert timeline(*rows)["pattern"].isna().all()


def test_the_day_of_surgery_stands_in_for_a_sample_before_it():
    assert timeline(sample(0, 2), sample(30, 0))["pattern"][0] == "turned_negative"
    assert timeline(sample(-3, 0), sample(0, 2), sample(30, 0))["pattern"][0] == "persistently_negative"


def test_a_late_sample_counts_within_the_landmarks_window_only():
    rows = [sample(-3, 2), sample(40, 0)]
    assert timeline(*rows)["pattern"].isna().all()
    assert timeline(*rows, landmark_window_days=14)["pattern"][0] == "turned_negative"


VISITS = st.lists(st.tuples(st.integers(-20, 400), st.none() | st.integers(0, 9)), min_size=1, max_size=8)


@given(visits=VISITS, later=st.lists(st.tuples(st.integers(31, 400), st.integers(0, 9)), max_size=4))
def test_nothing_after_the_landmark_changes_the_pattern(visits, later):
    known = [visit for visit in dict(visits).items() if visit[0] <= 30]
    if known:
        series = known, known + list(dict(later).items())
        alone, followed = (
            timeline(*(sample(*visit) for visit in rows))["pattern"].dropna().unique() for rows in series
        )
        assert alone.tolist() == followed.tolist()


@given(visits=VISITS)
def test_what_was_not_done_has_neither_status_nor_count(visits):
    table = timeline(*(sample(*visit) for visit in dict(visits).items()), schedule=SCHEDULE)
    other = table[table["visit_status"] != "done"]
    assert other[["status", "change", "ctc", "ctc_per_ml"]].isna().all(axis=None)
    assert set(table["pattern"].dropna()) <= PATTERN_NAMES
    assert (table["visit_status"] == "done").sum() == sum(ctc is not None for ctc in dict(visits).values())


def test_a_timeline_read_from_csv_has_the_same_patterns(tmp_path):
    table = timeline(sample(-3, 0), sample(7, None), sample(30, 6), sample(5, 1, "B"), schedule=SCHEDULE)
    table.to_csv(tmp_path / "timeline.csv", index=False)
    again = pd.read_csv(tmp_path / "timeline.csv")
    assert patterns_at(again, 30).to_dict() == patterns_at(table, 30).to_dict() == {"A": "turned_positive"}
    texts = pd.read_csv(tmp_path / "timeline.csv", dtype=str)
    assert texts.loc[texts["patient_id"] == "A", "day"].tolist() == ["-3", "7", "30", "183"]
    assert texts["ctc"].fillna("").tolist() == ["0", "", "6", "", "1"]


def test_counts_read_from_csv_make_the_same_timeline(tmp_path):
    table = counts(sample(-3, 0), sample(7, None), sample(30, 6))
    table.to_csv(tmp_path / "counts.csv", index=False)
    again = build_timeline(pd.read_csv(tmp_path / "counts.csv"), clinical(), SCHEDULE, CUTOFF)
    pd.testing.assert_frame_equal(again, build_timeline(table, clinical(), SCHEDULE, CUTOFF))
