"""YAML from people: plain values, or one kind of error in one short line."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.yaml_text import parse_yaml


def test_plain_values_come_through():
    assert parse_yaml("a: 1\nb: [x, 2.5, null]\n") == {"a": 1, "b": ["x", 2.5, None]}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    "text", ["a: [1", "!!int x", "!!int ''", "!!timestamp x", "2024-02-30", "[" * 5000, "!!python/name:os.system ''"]
)
def test_whatever_is_wrong_is_one_short_line(text):
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$"):
        parse_yaml(text)


def test_aliases_are_refused_before_they_can_grow():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml(bomb)


@given(st.text())
def test_any_text_is_a_value_or_that_error(text):
    with suppress(ValueError):
        parse_yaml(text)
