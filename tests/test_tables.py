"""Tables are read however they were saved, and refused, by row and column, for what they say."""

from __future__ import annotations

import codecs
import csv
import io
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import TableError
from ctc_imaging.tables import Row, check_unique, nearest, read_table

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12).map(str.strip)


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def row(decimal_comma=False, **values):
    return Row("table.csv", 3, values, decimal_comma)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_common_way_of_saving_is_read(tmp_path, delimiter, bom, newline):
    lines = [delimiter.join(fields) for fields in (["name", "size"], ["Müller", "7.5"], ["李", ""])]
    path = tmp_path / "table.csv"
    path.write_bytes(bom + (newline.join(lines) + newline).encode())
    table = read_table(path, ["name", "size"], [])
    assert [dict(entry.values) for entry in table.rows] == [
        {"name": "Müller", "size": "7.5"},
        {"name": "李", "size": ""},
    ]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), delimiter=st.sampled_from(",;\t"))
def test_text_survives_writing_and_reading(tmp_path_factory, rows, delimiter):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    path.write_bytes(buffer.getvalue().encode())
    kept = [pair for pair in rows if any(pair)]
    missing = {"na", "n/a", "nan"}
    expected = [tuple("" if text.lower() in missing else text for text in pair) for pair in kept]
    assert [(entry.values["a"], entry.values["b"]) for entry in read_table(path, ["a", "b"]).rows] == expected


def test_rows_are_numbered_as_an_editor_shows_them(tmp_path):
    path = written(tmp_path, 'a,b\n\n1,"two\nlines"\n,,\n3,4\n')
    assert [entry.line for entry in read_table(path, ["a", "b"]).rows] == [3, 6]


def test_empty_columns_and_cells_that_a_spreadsheet_adds_are_ignored(tmp_path):
    table = read_table(written(tmp_path, "a;b;;\n1;2;;\n"), ["a", "b"], [])
    assert table.columns == ("a", "b")
    assert table.rows[0].values == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("a,b,a\n", "column a: the column is there twice"),
        ("a,b\n1\n", "row 2: the row has 1 fields, the header has 2"),
        ("a,b\n1,2,3\n", "row 2: the row has 3 fields, the header has 2"),
        ("a,b,\n1,2,3\n", "row 2: the row has 3 fields, the header has 2"),
        ('a,b\n1,2\n3,"4\n', "row 3: not a table"),
        ("a\n1\n", "the column b is missing"),
        ("a,b,patient\n", "column patient: the column isn't known; did you mean patient_id?"),
        ("a,b,xyz\n", "column xyz: the column isn't known; known columns are a, b, patient_id"),
    ],
)
def test_a_malformed_table_says_where(tmp_path, text, message):
    with pytest.raises(TableError) as caught:
        read_table(written(tmp_path, text), ["a", "b"], ["patient_id"])
    assert message in str(caught.value)
    assert "table.csv" in caught.value.where
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_guessed_among_the_unknown_ones(tmp_path):
    with pytest.raises(TableError, match="column surgery_date is missing; is it the column Surgery Date"):
        read_table(written(tmp_path, "Surgery Date,x\n"), ["surgery_date"])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_another_encoding_is_refused(tmp_path, encoding):
    with pytest.raises(TableError, match="save it as CSV UTF-8"):
        read_table(written(tmp_path, "a\nMüller\n", encoding), ["a"])


def test_a_file_that_cannot_be_read_is_a_table_error(tmp_path):
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "none.csv", ["a"])
    with pytest.raises(TableError, match="can't be read"):
        read_table(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("text", "value"), [("7.5", 7.5), ("-1e3", -1000.0), (".5", 0.5), ("", None), ("1000", 1000.0)]
)
def test_numbers(text, value):
    assert row(x=text).number("x") == value


@pytest.mark.parametrize("text", ["7,5", "5 mL", "inf", "1_000", "0x1", "１", "1e999", "1,000.5"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(TableError, match=r"table.csv, row 3, column x: .* isn't a number"):
        row(x=text).number("x")


def test_a_decimal_comma_is_read_unless_it_may_mean_thousands():
    assert row(decimal_comma=True, x="7,5").number("x") == 7.5
    with pytest.raises(TableError, match="thousands or decimals"):
        row(decimal_comma=True, x="1,000").number("x")


def test_counts_and_positive_numbers():
    assert row(x="12").count("x") == 12
    assert row(x="").positive("x") is None
    for text in ("-1", "1.5"):
        with pytest.raises(TableError, match="whole number from 0 up"):
            row(x=text).count("x")
    for text in ("0", "-7.5"):
        with pytest.raises(TableError, match="isn't above zero"):
            row(x=text).positive("x")


def test_dates_are_iso_8601():
    for text in ("2024-03-05", "20240305", "2024-03-05T10:30:00", "2024-03-05 00:00:00"):
        assert row(x=text).iso_date("x") == date(2024, 3, 5)
    for text in ("05.03.2024", "3/5/2024", "45356", "2024-02-30", "2024-3-5"):
        with pytest.raises(TableError, match="isn't a date; write it like 2024-03-05"):
            row(x=text).iso_date("x")
    with pytest.raises(TableError, match="the year"):
        row(x="0204-03-05").iso_date("x")


def test_missing_and_unknown_words():
    assert row(x="").text("x") is None
    assert row(x="b").choice("x", ("a", "b")) == "b"
    with pytest.raises(TableError, match="the value is missing"):
        row(x="").required("x")
    with pytest.raises(TableError, match="'c' isn't known; use one of a, b"):
        row(x="c").choice("x", ("a", "b"))


def test_a_key_that_is_there_twice_names_both_rows(tmp_path):
    table = read_table(written(tmp_path, "a\n1\n2\n1\n"), ["a"])
    with pytest.raises(TableError, match="row 4, column a: '1' is already in row 2"):
        check_unique(table, "a", [entry.required("a") for entry in table.rows])


def test_the_nearest_name_ignores_case_and_punctuation():
    assert nearest("Blood volume (mL)", ["blood_volume_ml", "batch"]) == "blood_volume_ml"
    assert nearest("qqq", ["blood_volume_ml"]) is None
