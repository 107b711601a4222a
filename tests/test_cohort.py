"""The tables a laboratory hands in are checked whole before any slide starts."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ctc_imaging.cohort import (
    Schedule,
    Visit,
    load_clinical,
    load_cohort,
    load_imaging,
    load_markers,
    load_schedule,
)
from ctc_imaging.errors import ConfigError, TableError

HEADER = "slide,patient_id,sample_date,blood_volume_ml"


def cohort(tmp_path, *rows, extra=""):
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join([HEADER + extra, *rows]) + "\n", encoding="utf-8")
    return load_cohort(path)


def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shortest_cohort_gets_its_defaults(tmp_path):
    (entry,) = cohort(tmp_path, "scans/a.ome.tif,P1,2024-03-05,7.5")
    assert entry.slide == tmp_path / "scans/a.ome.tif"
    assert (entry.slide_id, entry.sample_id, entry.sample_kind) == ("a", "P1_2024-03-05", "patient")
    assert (entry.sample_date, entry.blood_volume_ml, entry.volume_on_slide_ml) == (date(2024, 3, 5), 7.5, 7.5)
    assert (entry.spiked_cells, entry.rescan_of, entry.panel, entry.pixel_size_um) == (None,) * 4


def test_every_column_is_read(tmp_path):
    columns = ",slide_id,sample_id,sample_kind,spiked_cells,volume_on_slide_ml,rescan_of,batch,site,panel,pixel_size_um"
    (entry,) = cohort(tmp_path, "/abs/x,,2024-03-05,5,s1,t1,spiked,100,2.5,,B7,Fuzhou,emt-4,0.5", extra=columns)
    assert str(entry.slide).endswith("abs/x")
    assert (entry.slide_id, entry.sample_id, entry.patient_id, entry.spiked_cells) == ("s1", "t1", "", 100)
    assert (entry.volume_on_slide_ml, entry.batch, entry.site, entry.panel) == (2.5, "B7", "Fuzhou", "emt-4")
    assert entry.pixel_size_um == 0.5


def test_backslashes_of_windows_are_folders(tmp_path):
    (entry,) = cohort(tmp_path, r"scans\day 1\a.tif,P1,2024-03-05,5")
    assert entry.slide == tmp_path / "scans" / "day 1" / "a.tif"


def test_slides_may_be_urls(tmp_path):
    urls = ["s3://bucket/P1/a.ome.zarr", "memory://P2/a.ome.zarr", "https://server/b.ome.tif?signature=x"]
    entries = cohort(
        tmp_path, *(f"{url},P{row},2024-03-05,5" for row, url in enumerate([*urls, "file:///scans/c.tif"]))
    )
    assert [entry.slide_id for entry in entries] == ["P1_a", "P2_a", "b", "c"]
    assert [str(entry.slide) for entry in entries[:3]] == urls
    assert entries[3].slide == Path("/scans/c.tif")
    assert [replace(entry, slide=entry.slide.absolute()) for entry in entries] == list(entries)
    assert pickle.loads(pickle.dumps(entries)) == entries


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["nope://a,P1,2024-03-05,5"], "row 2, column slide: no protocol nope:// is known"),
        (["https://me:word@server/a.tif,P1,2024-03-05,5"], "row 2, column slide: the URL holds a password"),
        (["s3://b/a.tif,P1,2024-03-05,5"] * 2, "row 3, column slide: 's3://b/a.tif' is already in row 2"),
    ],
)
def test_wrong_urls_are_refused(tmp_path, rows, message):
    with pytest.raises(TableError) as caught:
        cohort(tmp_path, *rows)
    assert message in str(caught.value)
    assert "word@" not in str(caught.value)


def test_a_slide_that_does_not_exist_is_no_fault_of_the_table(tmp_path):
    assert not cohort(tmp_path, "nowhere.tif,P1,2024-03-05,5")[0].slide.exists()


def test_blood_is_shared_by_glass_slides_and_not_by_scans(tmp_path):
    entries = cohort(
        tmp_path,
        "a.tif,P1,2024-03-05,6,",
        "b.tif,P1,2024-03-05,6,",
        "c.tif,P1,2024-03-05,6,b",
        "d.tif,P1,2024-03-05,6,c",
        "e.tif,P2,2024-03-05,6,",
        extra=",rescan_of",
    )
    assert [entry.volume_on_slide_ml for entry in entries] == [3, 3, 3, 3, 6]


def test_a_rescan_has_the_volume_of_its_glass(tmp_path):
    rows = ["a.tif,P1,2024-03-05,6,,2", "b.tif,P1,2024-03-05,6,a,", "c.tif,P1,2024-03-05,6,,"]
    volumes = [entry.volume_on_slide_ml for entry in cohort(tmp_path, *rows, extra=",rescan_of,volume_on_slide_ml")]
    assert volumes == [2, 2, 3]


@given(slides=st.integers(1, 6), blood=st.floats(0.1, 50))
def test_default_volumes_of_a_sample_sum_to_its_blood(tmp_path_factory, slides, blood):
    rows = [f"{number}.tif,P1,2024-03-05,{blood!r}" for number in range(slides)]
    entries = cohort(tmp_path_factory.mktemp("cohort"), *rows)
    assert sum(entry.volume_on_slide_ml for entry in entries) == pytest.approx(blood)


def test_ids_from_file_names_are_made_unique_by_folders(tmp_path):
    slides = ["P1/pre/x.ome.tif", "P1/post/x.ome.tif", "P2/pre/x.ome.tif", "P2/pre/y.zarr", "P2/pre/field.v2"]
    entries = cohort(tmp_path, *(f"{slide},{slide[:2]},2024-03-0{i + 1},5" for i, slide in enumerate(slides)))
    assert [entry.slide_id for entry in entries] == ["P1_pre_x", "post_x", "P2_pre_x", "y", "field.v2"]


@pytest.mark.parametrize(
    ("name", "slide_id"), [("con.tif", "_con"), ("a:b?.tif", "a_b_"), (".hidden.tif", "hidden"), ("肝.tif", "肝")]
)
def test_ids_from_file_names_can_name_folders_anywhere(tmp_path, name, slide_id):
    assert cohort(tmp_path, f"{name},P1,2024-03-05,5")[0].slide_id == slide_id


@given(name=st.text(min_size=1, max_size=150).filter(lambda text: not set(text) & set('/\\\0"\r\n,') and text.strip()))
def test_an_id_from_any_file_name_is_taken_as_an_id(tmp_path_factory, name):
    assume(not any("\ud800" <= letter <= "\udfff" for letter in name) and name.strip().lower() not in {"na", "nan"})
    folder = tmp_path_factory.mktemp("cohort")
    (first,) = cohort(folder, f'"{name}",P1,2024-03-05,5')
    (again,) = cohort(folder, f'x.tif,P1,2024-03-05,5,"{first.slide_id}"', extra=",slide_id")
    assert again.slide_id == first.slide_id


@pytest.mark.parametrize("slide_id", ["a/b", "..", "NUL", "aux.txt", "a.", "x" * 200, "a:b", ".a"])
def test_ids_that_cannot_name_a_folder_are_refused(tmp_path, slide_id):
    with pytest.raises(TableError, match=r"row 2, column slide_id: .* can't name a folder"):
        cohort(tmp_path, f"a.tif,P1,2024-03-05,5,{slide_id}", extra=",slide_id")


@pytest.mark.parametrize(
    ("extra", "rows", "message"),
    [
        ("", [",P1,2024-03-05,5"], "row 2, column slide: the value is missing"),
        ("", ["a,,2024-03-05,5"], "row 2, column patient_id: the value is missing"),
        ("", ["a,P1,05.03.2024,5"], "row 2, column sample_date: '05.03.2024' isn't a date"),
        ("", ["a,P1,2024-03-05,0"], "column blood_volume_ml: '0' isn't above zero"),
        ("", ["a,P1,2024-03-05,"], "column blood_volume_ml: the value is missing"),
        ("", ["a,P1,2024-03-05,5", "a,P1,2024-03-05,5"], "row 3, column slide: 'a' is already in row 2"),
        ("", ["a,P1,2024-03-05,5", "b,P1,2024-03-05,7.5"], "row 3, column blood_volume_ml: differs from row 2"),
        ("", [], "the table has a header but no rows"),
        (",slide_di", ["a,P1,2024-03-05,5,x"], "column slide_di: the column isn't known; did you mean slide_id?"),
        (",slide_id", ["a,P1,2024-03-05,5,x", "b,P1,2024-03-05,5,X"], "column slide_id: 'X' is already in row 2"),
        (",sample_kind", ["a,P1,2024-03-05,5,control"], "'control' isn't known; use one of patient, blank"),
        (",spiked_cells", ["a,P1,2024-03-05,5,9"], "a patient sample holds spiked cells"),
        (",sample_id", ["a,P1,2024-03-05,5,t", "b,P2,2024-03-05,5,t"], "column patient_id: differs from row 2"),
        (",sample_id", ["a,P1,2024-03-05,5,t", "b,P1,2024-03-06,5,t"], "column sample_date: differs from row 2"),
        (",panel", ["a,P1,2024-03-05,5,x", "b,P1,2024-03-05,5,y"], "row 3, column panel: differs from row 2"),
        (",volume_on_slide_ml", ["a,P1,2024-03-05,5,4", "b,P1,2024-03-05,5,2"], "hold more than its 5 mL of blood"),
        (",rescan_of", ["a,P1,2024-03-05,5,", "b,P1,2024-03-05,5,aa"], "no slide 'aa'; did you mean a?"),
        (",rescan_of", ["a,P1,2024-03-05,5,", "b,P2,2024-03-05,5,a"], "a is of another sample"),
        (",rescan_of", ["a,P1,2024-03-05,5,a"], "the rescans go round in a circle"),
        (",rescan_of", ["a,P1,2024-03-05,5,b", "b,P1,2024-03-05,5,a"], "the rescans go round in a circle"),
        (
            ",rescan_of",
            ["a,P1,2024-03-05,5,", "b,P1,2024-03-05,5,a", "c,P1,2024-03-05,5,a"],
            "row 4, column rescan_of: a is already rescanned in row 3",
        ),
        (
            ",rescan_of,volume_on_slide_ml",
            ["a,P1,2024-03-05,5,,2", "b,P1,2024-03-05,5,a,3"],
            "differs from that of the slide it rescans",
        ),
    ],
)
def test_a_wrong_cohort_is_refused_with_its_row(tmp_path, extra, rows, message):
    with pytest.raises(TableError) as caught:
        cohort(tmp_path, *rows, extra=extra)
    assert message in str(caught.value)
    assert "cohort.csv" in caught.value.where


def test_controls_need_no_patient_and_pool_by_batch(tmp_path):
    rows = [
        "a,,2024-03-05,5,blank,1",
        "b,,2024-03-05,5,blank,1",
        "c,,2024-03-05,5,blank,2",
        "d,D1,2024-03-05,5,donor,2",
    ]
    entries = cohort(tmp_path, *rows, extra=",sample_kind,batch")
    samples = ["blank_1_2024-03-05", "blank_1_2024-03-05", "blank_2_2024-03-05", "D1_2024-03-05"]
    assert [entry.sample_id for entry in entries] == samples


CLINICAL = "patient_id,surgery_date,last_contact_date,recurrence_date,death_date"


def test_clinical_dates_and_covariates_get_their_types(tmp_path):
    header = f"{CLINICAL},recurrence_site,MVI,AFP,note"
    rows = ["007,2024-01-01,2025-01-01,2024-06-01,,liver,1,12.5,x", "8,2024-01-01,,,2024-09-09,,0,,"]
    clinical = load_clinical(table(tmp_path, "\n".join([header, *rows])))
    assert clinical["patient_id"].tolist() == ["007", "8"]
    assert all(clinical[name].dtype == "datetime64[ns]" for name in CLINICAL.split(",")[1:])
    assert clinical.loc[1, "last_contact_date"] == pd.Timestamp("2024-09-09")
    assert clinical["AFP"].dtype == "float64"
    assert clinical["AFP"].isna().tolist() == [False, True]
    assert clinical.loc[0, ["recurrence_site", "note", "MVI"]].tolist() == ["liver", "x", 1.0]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            CLINICAL,
            ["A,2024-01-01,2025-01-01,,", "A,2024-01-01,2025-01-01,,"],
            "column patient_id: 'A' is already in row 2",
        ),
        (CLINICAL, ["A,,2025-01-01,,"], "column surgery_date: the value is missing"),
        (CLINICAL, ["A,2024-01-01,,,"], "column last_contact_date: the value is missing"),
        (CLINICAL, ["A,2024-01-01,2025-01-01,2023-12-31,"], "recurrence_date: 2023-12-31 is before surgery_date"),
        (CLINICAL, ["A,2024-01-01,2024-05-01,2024-06-01,"], "last_contact_date: 2024-05-01 is before recurrence_date"),
        (CLINICAL, ["A,2024-01-01,2024-05-01,,2024-04-01"], "death_date: 2024-04-01 is before last_contact_date"),
        (CLINICAL, ["A,2024-01-01,2023-05-01,,"], "last_contact_date: 2023-05-01 is before surgery_date"),
        (f"{CLINICAL},withdrawl_date", ["A,2024-01-01,2025-01-01,,,"], "did you mean withdrawal_date?"),
        (CLINICAL.replace("death", "dead"), [], "the column death_date is missing; is it the column dead_date?"),
    ],
)
def test_contradictions_in_the_clinical_table_are_refused(tmp_path, header, rows, message):
    with pytest.raises(TableError) as caught:
        load_clinical(table(tmp_path, "\n".join([header, *rows])))
    assert message in str(caught.value)


def test_imaging_and_markers(tmp_path):
    imaging = load_imaging(table(tmp_path, "patient_id,imaging_date,modality,result\nA,2024-01-01,MRI,negative\n"))
    assert imaging.iloc[0].tolist() == ["A", pd.Timestamp("2024-01-01"), "MRI", "negative"]
    markers = load_markers(table(tmp_path, "patient_id;date;marker;value\nA;2024-01-01;AFP;0\nA;2024-01-02;AFP;7,5\n"))
    assert markers["value"].tolist() == [0.0, 7.5]
    assert markers["date"].dtype == "datetime64[ns]"


@pytest.mark.parametrize(
    ("load", "text", "message"),
    [
        (load_imaging, "patient_id,imaging_date,modality,result\nA,2024-01-01,CT,clear\n", "'clear' isn't known"),
        (
            load_imaging,
            "patient_id,imaging_date,modality,result\nA,2024-01-01,CT,\n",
            "column result: the value is missing",
        ),
        (
            load_imaging,
            "patient_id,imaging_date,modality,result\nA,2024-01-01,CT,negative\nA,2024-01-01,CT,positive\n",
            "row 3, column imaging_date",
        ),
        (load_markers, "patient_id,date,marker,value\nA,2024-01-01,AFP,<2\n", "'<2' isn't a number"),
        (load_markers, "patient_id,date,marker,value\nA,,AFP,2\n", "column date: the value is missing"),
    ],
)
def test_wrong_visits_and_measurements_are_refused(tmp_path, load, text, message):
    with pytest.raises(TableError) as caught:
        load(table(tmp_path, text))
    assert message in str(caught.value)


def test_a_schedule_is_read_in_order_of_days(tmp_path):
    text = "- {name: 1 month, day: 30, window_days: [7, 14]}\n- {name: before, day: -3, window_days: [-10, 2]}\n"
    schedule = load_schedule(table(tmp_path, text))
    assert schedule == Schedule((Visit("before", -3, 10, 2), Visit("1 month", 30, 7, 14)))
    assert [schedule.visits[1].covers(day) for day in (22, 23, 44, 45)] == [False, True, True, False]
    assert load_schedule(table(tmp_path, "visits:\n- {name: a, day: 1, window_days: [0, 0]}\n")).visits[0].name == "a"


@pytest.mark.parametrize(
    "text",
    [
        "- {name: a, day: 1}",
        "- {name: a, day: one, window_days: [0, 0]}",
        "- {name: a, day: 1, window_days: [0]}",
        "- {name: a, day: 1, window_days: [0, -1]}",
        "- {name: a, day: 1, window_days: [0, 0], days: 3}",
        "- {name: a, day: 1, window_days: [1, 5]}\n- {name: b, day: 7, window_days: [1, 5]}",
        "42",
        "a: [",
        "",
    ],
)
def test_a_malformed_schedule_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"table\.csv"):
        load_schedule(table(tmp_path, text))


def test_what_only_looks_like_a_url_is_refused_by_row(tmp_path):
    (tmp_path / "cohort.csv").write_text(
        "slide,patient_id,sample_date,blood_volume_ml\nhttps://[broken/a.tif,P1,2026-01-01,5\n"
    )
    with pytest.raises(TableError, match="not a URL"):
        load_cohort(tmp_path / "cohort.csv")
