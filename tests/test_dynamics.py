"""Dynamics: weak changes aren't changes, what wasn't seen isn't negative, early and late and site are kept apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.counting import COUNT_COLUMNS
from ctc_imaging.errors import ConfigError, TableError
from ctc_imaging.panel import CutOff
from ctc_imaging.recurrence.cutoffs import cutoff_table, judge, published_cutoff, published_cutoffs, usable_cutoff
from ctc_imaging.recurrence.dynamics import changes_at, dynamics, outcome_counts, recurrence_outcomes, with_cutoff
from ctc_imaging.timeline import build_timeline

SURGERY = pd.Timestamp("2020-01-01")
CUTOFF = CutOff(2, 5.0, "CanPatrol", "Guo 2018")


def clinical_of(*patients):
    """Rows of (id, last contact, recurrence, death, site), in days since surgery."""
    rows = [
        {
            "patient_id": name,
            "surgery_date": SURGERY,
            "last_contact_date": SURGERY + pd.Timedelta(days=last),
            "recurrence_date": pd.NaT if recurrence is None else SURGERY + pd.Timedelta(days=recurrence),
            "death_date": pd.NaT if death is None else SURGERY + pd.Timedelta(days=death),
            "recurrence_site": site,
        }
        for name, last, recurrence, death, site in patients
    ]
    return pd.DataFrame(rows)


def timeline_of(clinical, samples, landmark=30):
    """Samples of (patient, day, ctc or None); None isn't assessable."""
    rows = [
        {
            "sample_id": f"{name}{day}",
            "patient_id": name,
            "sample_date": (SURGERY + pd.Timedelta(days=day)).date().isoformat(),
            "sample_kind": "patient",
            "blood_volume_ml": 5.0,
            "assessed_volume_ml": None if ctc is None else 5.0,
            "assessable": ctc is not None,
            "ctc": ctc,
        }
        for name, day, ctc in samples
    ]
    return build_timeline(pd.DataFrame(rows).reindex(columns=list(COUNT_COLUMNS)), clinical, None, CUTOFF, landmark)


@pytest.mark.parametrize(("before", "least"), [(0, 6), (1, 8), (5, 15)])
def test_a_rise_takes_as_many_cells_as_the_exact_test_asks_for(before, least):
    clinical = clinical_of(("A", 900, None, None, None), ("B", 900, None, None, None))
    samples = [("A", -1, before), ("A", 30, least - 1), ("B", -1, before), ("B", 30, least)]
    timeline = timeline_of(clinical, samples)
    assert changes_at(timeline, 30).to_dict() == {"A": "not_distinguishable", "B": "rise"}
    back = timeline_of(clinical, [(name, 30 if day < 0 else -1, ctc) for name, day, ctc in samples])
    assert changes_at(back, 30).to_dict() == {"A": "not_distinguishable", "B": "fall"}


def test_outcomes_and_sites_are_kept_apart():
    clinical = clinical_of(
        ("early", 800, 730, 800, " Liver "),
        ("late", 900, 731, None, "lung"),
        ("site unknown", 900, 100, None, None),
        ("died", 300, None, 300, None),
        ("free", 730, None, None, None),
        ("lost", 729, None, None, None),
    )
    found = recurrence_outcomes(clinical)
    assert found["outcome"].to_dict() == {
        "early": "early",
        "late": "late",
        "site unknown": "early",
        "died": "death_without_recurrence",
        "free": "none",
        "lost": "lost",
    }
    assert found["site"].tolist() == ["liver", "lung", "not stated", None, None, None]
    counts = outcome_counts(found)
    assert counts[counts["site"] == "all"].set_index("outcome")["patients"].sum() == 6
    assert ("early", "liver", 1) in counts.itertuples(index=False, name=None)
    assert recurrence_outcomes(clinical, 800)["outcome"]["late"] == "early"
    assert recurrence_outcomes(clinical.drop(columns="recurrence_site"))["site"]["early"] == "not stated"


def test_what_wasn_t_seen_stays_missing():
    clinical = clinical_of(*((name, 900, None, None, None) for name in "ABCD"))
    timeline = timeline_of(
        clinical, [("A", -1, 3), ("A", 30, None), ("B", -1, 3), ("C", 30, 0), ("D", -1, 3), ("D", 30, 0)]
    )
    found = dynamics(timeline, recurrence_outcomes(clinical), 30)
    assert found.patients["pattern"].isna().tolist() == [True, True, True, False]
    row = found.table[(found.table["outcome"] == "none") & (found.table["site"] == "all")].iloc[0]
    assert (row["patients"], row["no_pattern"], row["not_comparable"], row["turned_negative"]) == (4, 3, 3, 1)
    assert row["persistently_negative"] == 0
    assert "3 patient(s) have no pattern" in " ".join(found.notes)


def test_whoever_recurred_by_the_landmark_is_left_out():
    clinical = clinical_of(("A", 900, 30, None, "liver"), ("B", 900, 31, None, "liver"))
    timeline = timeline_of(clinical, [("A", -1, 3), ("A", 20, 0), ("B", -1, 3), ("B", 20, 0)])
    found = dynamics(timeline, recurrence_outcomes(clinical), 30)
    assert found.patients.index.tolist() == ["B"]
    assert "1 patient(s) recurred, died or left by day 30" in found.notes[0]


@given(seed=st.integers(0, 500), landmark=st.integers(10, 200))
@settings(max_examples=12, deadline=None)
def test_nothing_after_the_landmark_is_looked_at(seed, landmark):
    rng = np.random.default_rng(seed)
    clinical = clinical_of(*((f"P{number}", 900, None, None, None) for number in range(6)))
    samples = [
        (f"P{number}", int(day), int(rng.poisson(3)))
        for number in range(6)
        for day in (-2, *sorted(rng.choice(np.arange(1, 400), 4, replace=False)))
    ]
    whole, known = (
        dynamics(timeline_of(clinical, some, landmark), recurrence_outcomes(clinical), landmark)
        for some in (samples, [sample for sample in samples if sample[1] <= landmark])
    )
    pd.testing.assert_frame_equal(whole.table, known.table)
    patterns = whole.table[whole.table["site"] == "all"].iloc[:, 3:8].sum(axis=1)
    assert (patterns == whole.table.loc[whole.table["site"] == "all", "patients"]).all()


def test_another_cut_off_reads_the_status_anew():
    clinical = clinical_of(("A", 900, None, None, None))
    timeline = timeline_of(clinical, [("A", -1, 1), ("A", 7, None), ("A", 30, 6)])
    assert timeline["status"].fillna("none").tolist() == ["negative", "none", "positive"]
    anew = with_cutoff(timeline, CutOff(1, 5.0, "assay not stated", "Zhang 2022"))
    assert anew["status"].fillna("none").tolist() == ["positive", "none", "positive"]
    assert anew["change"].equals(timeline["change"])
    assert with_cutoff(timeline, CutOff(1, 7.5, "CellSearch", "another"))["status"].isna().all()
    with pytest.raises(TableError, match="is missing"):
        with_cutoff(timeline.drop(columns="ctc"), CUTOFF)


def test_a_cut_off_is_refused_where_volume_or_assay_differ():
    assert judge(published_cutoff("guo-2018"), [5.0], "canpatrol").verdict == "fits"
    assert judge(published_cutoff("guo-2018"), [5.0], "CellSearch").verdict == "refused"
    assert judge(published_cutoff("yu-2018"), [5.0], "CellSearch").verdict == "refused"
    assert judge(published_cutoff("yu-2018"), [7.5, 5.0], "CellSearch").verdict == "marked"
    assert judge(published_cutoff("guo-2018"), [5.0], None).verdict == "marked"
    with pytest.raises(ConfigError, match="holds for 7"):
        usable_cutoff("yu-2018", [5.0], None)
    with pytest.raises(ConfigError, match="doesn't state the blood volume"):
        usable_cutoff("zhou-2020", [5.0], None)
    with pytest.raises(ConfigError, match="no published cut-off has this name"):
        usable_cutoff("nobody-1999", [5.0], None)


def test_what_a_source_doesn_t_state_is_marked():
    cutoff, mark = usable_cutoff("bmc-cancer-2025", [5.0], "CanPatrol")
    assert (cutoff.ctc, cutoff.volume_ml) == (6, 5.0)
    assert "doesn't state the assay" in mark
    assert usable_cutoff("guo-2018", [5.0], "CanPatrol") == (
        CutOff(2, 5.0, "CanPatrol", published_cutoff("guo-2018").source),
        "",
    )
    table = cutoff_table([5.0], "CanPatrol")
    assert len(table) == len(published_cutoffs()) >= 5
    assert set(table["verdict"]) == {"fits", "marked", "refused"}
    assert (table["reason"].ne("") == table["verdict"].ne("fits")).all()
    assert table["source"].str.len().gt(5).all()
