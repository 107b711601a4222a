"""Follow-up: two tables on one clock, what is at risk and known at a landmark, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import TableError
from ctc_imaging.recurrence.follow_up import FollowUp, follow_up_of_run, follow_up_of_tables

COLUMNS = {"id": "who", "time": "day", "event_time": "end", "event": "had"}


def tables():
    long = pd.DataFrame({"who": ["b", "a", "a", "c"], "day": [3, 40, 2, 0], "ctc": [1, 2, 3, 4]})
    events = pd.DataFrame({"who": ["a", "b", "c"], "end": [50, 20, 9.5], "had": [1, 0, 1], "arm": ["x", "y", "x"]})
    return long, events


def made(long=None, events=None):
    plain = tables()
    return FollowUp(plain[0] if long is None else long, plain[1] if events is None else events, **COLUMNS)


def test_rows_stand_in_order_of_the_event_table_and_time():
    follow_up = made()
    assert list(follow_up.long["who"]) == ["a", "a", "b", "c"]
    assert list(follow_up.long["day"]) == [2.0, 40.0, 3.0, 0.0]
    assert list(follow_up.subjects) == ["a", "b", "c"]
    assert follow_up.events["had"].dtype == bool
    assert follow_up.long["day"].dtype == float
    assert follow_up.notes == ()


def test_tables_that_were_handed_over_stay_as_they_are():
    long, events = tables()
    made(long, events)
    for table, before in zip((long, events), tables(), strict=True):
        pd.testing.assert_frame_equal(table, before)


@given(order=st.permutations(range(4)))
def test_the_order_of_rows_does_not_matter(order):
    long, _ = tables()
    pd.testing.assert_frame_equal(made(long.iloc[order]).long, made().long)


def test_measurements_after_the_end_are_left_out_with_a_note():
    long, events = tables()
    follow_up = made(long, events.assign(end=[30, 20, 9.5]))
    assert len(follow_up.long) == 3
    assert follow_up.notes == ("1 measurement(s) from after the end of follow-up are left out.",)
    assert follow_up.subset(["b"]).notes == ()


@pytest.mark.parametrize(
    "words", [["yes", "no", "Yes"], ["TRUE", "FALSE", "true"], [True, False, True], ["1", "0", "1"]]
)
def test_the_event_is_read_from_words_too(words):
    assert list(made(events=tables()[1].assign(had=words)).events["had"]) == [True, False, True]


@given(landmark=st.floats(-5, 60))
def test_at_a_landmark_nobody_is_past_the_end_and_nothing_is_known_of_later(landmark):
    follow_up = made()
    ends = dict(zip("abc", (50, 20, 9.5), strict=True))
    if not any(end > landmark for end in ends.values()):
        with pytest.raises(TableError, match="holds nobody"):
            follow_up.at(landmark)
        return
    known = follow_up.at(landmark)
    assert set(known.subjects) == {who for who, end in ends.items() if end > landmark}
    assert (known.long["day"] <= landmark).all()
    expected = [(who, day) for who, day in follow_up.long[["who", "day"]].itertuples(index=False)]
    expected = [(who, day) for who, day in expected if day <= landmark < ends[who]]
    assert list(known.long[["who", "day"]].itertuples(index=False, name=None)) == expected


def test_who_ends_at_the_landmark_is_not_at_risk_after_it():
    assert list(made().at(20).subjects) == ["a"]


@given(ids=st.sets(st.sampled_from("abc"), min_size=1))
def test_a_subset_keeps_both_tables_of_some(ids):
    some = made().subset(ids)
    assert set(some.subjects) == ids
    assert set(some.long["who"]) == ids


@pytest.mark.parametrize(
    ("change_long", "change_events", "fault"),
    [
        ({}, {"who": ["a", "a", "c"]}, "a stands there twice"),
        ({}, {"who": ["a", "b", "d"]}, "c isn't in the event table"),
        ({}, {"end": [50, -1, 9.5]}, "end of b is missing, negative or infinite"),
        ({}, {"end": [50, np.nan, 9.5]}, "end of b is missing, negative or infinite"),
        ({}, {"end": [50, np.inf, 9.5]}, "end of b is missing, negative or infinite"),
        ({}, {"end": ["50", "soon", "9.5"]}, "end isn't all numbers"),
        ({}, {"had": [1, 2, 0]}, "had isn't 0 or 1"),
        ({}, {"had": [1, np.nan, 0]}, "had isn't 0 or 1"),
        ({"day": [3, np.nan, 2, 0]}, {}, "day of a measurement of a is missing"),
        ({"day": ["3", "x", "2", "0"]}, {}, "day isn't all numbers"),
    ],
)
def test_tables_that_make_no_sense_are_refused_with_who_and_what(change_long, change_events, fault):
    long, events = tables()
    with pytest.raises(TableError, match=fault):
        made(long.assign(**change_long), events.assign(**change_events))


def test_a_missing_column_and_an_empty_table_are_named():
    long, events = tables()
    with pytest.raises(TableError, match="has no column day"):
        made(long=long.drop(columns="day"))
    with pytest.raises(TableError, match="has no column had"):
        made(events=events.drop(columns="had"))
    with pytest.raises(TableError, match="holds nobody"):
        made(events=events[:0])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_whatever_separates_their_columns(tmp_path, separator):
    for name, table in zip(("long", "events"), tables(), strict=True):
        table.to_csv(tmp_path / name, sep=separator, index=False)
    follow_up = follow_up_of_tables(tmp_path / "long", tmp_path / "events", **COLUMNS)
    assert list(follow_up.long["ctc"]) == [3.0, 2.0, 1.0, 4.0]
    assert list(follow_up.events["arm"]) == ["x", "y", "x"]
    assert follow_up.time_unit == "units of day"


def test_ids_of_digits_stay_text_and_gaps_stay_unknown(tmp_path):
    (tmp_path / "long").write_text("who,day,ctc\n007,1,\n7,2,5\n")
    (tmp_path / "events").write_text("who,end,had\n007,10,1\n7,12,0\n")
    follow_up = follow_up_of_tables(tmp_path / "long", tmp_path / "events", **COLUMNS)
    assert list(follow_up.subjects) == ["007", "7"]
    assert np.isnan(follow_up.long["ctc"].iloc[0])


def test_a_runs_timeline_stands_beside_its_recurrences():
    timeline = pd.DataFrame(
        {
            "patient_id": ["P1", "P1", "P2", "P9"],
            "day": [7, 30, 7, 7],
            "visit_status": ["done", "missed", "done", "done"],
            "ctc": [1, None, 3, 2],
        }
    )
    clinical = pd.DataFrame(
        {
            "patient_id": ["P1", "P2", "P3"],
            "surgery_date": pd.to_datetime(["2020-01-01"] * 3),
            "last_contact_date": pd.to_datetime(["2021-01-01"] * 3),
            "recurrence_date": pd.to_datetime(["2020-06-01", None, None]),
            "death_date": pd.to_datetime([None, None, None]),
        }
    )
    follow_up = follow_up_of_run(timeline, clinical)
    assert list(follow_up.subjects) == ["P1", "P2"]
    assert list(follow_up.events["event"]) == [True, False]
    assert list(follow_up.events["days"]) == [152.0, 366.0]
    assert len(follow_up.long) == 2
    assert follow_up.notes == ("1 patient(s) with samples aren't in the clinical table.",)
