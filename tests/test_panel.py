"""Panels: channels found by name or place, malformed files refused in one line."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import PanelError
from ctc_imaging.panel import Role, load_panel, parse_panel, shipped_panels

GOOD = """
name: mine
channels:
  - {short: dna, role: nucleus, colour: "#0000ff", aliases: [Hoechst 33342]}
  - {short: asgpr, role: tumour, colour: "#00ff00"}
clusters: {name: near, min_ctc: 2, max_gap_um: 1}
"""


@pytest.mark.parametrize("name", ["emt-4", "epithelial-3"])
def test_shipped_panels_load_and_name_their_source(name):
    panel = load_panel(name)
    assert name in shipped_panels()
    assert panel.cutoff is not None
    assert panel.cutoff.source
    assert panel.channel(Role.NUCLEUS).short == "dapi"


def test_channels_are_found_by_any_spelling_in_any_order():
    assert load_panel("emt-4").assign(["cd-45", "Pan-CK", "DAPI", "Vimentin"], "slide") == {
        "dapi": 2,
        "ck": 1,
        "vim": 3,
        "cd45": 0,
    }


@given(st.permutations(["DAPI", "CK", "Vimentin", "CD45", "extra"]))
def test_order_on_the_slide_does_not_matter(names):
    found = load_panel("emt-4").assign(names, "slide")
    assert [names[index] for index in found.values()] == ["DAPI", "CK", "Vimentin", "CD45"]


def test_unnamed_channels_are_taken_by_place():
    assert load_panel("epithelial-3").assign([None, None, None], "slide") == {"dapi": 0, "ck": 1, "cd45": 2}


@pytest.mark.parametrize("names", [["DAPI", "CK", "CD45"], ["DAPI", "CK", "panCK", "Vimentin", "CD45"], [None, None]])
def test_a_slide_that_does_not_fit_is_refused_by_name(names):
    with pytest.raises(PanelError, match=r"^scan\.tif: .*; ") as caught:
        load_panel("emt-4").assign(names, "scan.tif")
    assert "\n" not in str(caught.value)


def test_a_laboratorys_own_panel(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    panel = load_panel(path)
    assert panel.shorts == ("dna", "asgpr")
    assert panel.cutoff is None
    assert panel.assign(["ASGPR", "hoechst 33342"], "slide") == {"dna": 1, "asgpr": 0}


def test_the_hash_changes_with_anything_in_the_panel():
    variants = [
        GOOD,
        GOOD.replace("min_ctc: 2", "min_ctc: 3"),
        GOOD.replace("asgpr", "gpc3"),
        GOOD.replace("#00ff00", "#00ff01"),
    ]
    hashes = [parse_panel(text, "x").hash for text in variants]
    assert len(set(hashes)) == len(variants)
    assert parse_panel(GOOD, "elsewhere").hash == hashes[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "name: [unclosed",
        GOOD.replace("role: nucleus", "role: soul"),
        GOOD.replace("short: asgpr", "short: dna"),
        GOOD.replace("short: asgpr", "short: Bad Name"),
        GOOD.replace("#00ff00", "green"),
        GOOD.replace("role: nucleus", "role: tumour"),
        GOOD.replace("clusters:", "klusters:"),
        GOOD.replace("min_ctc: 2", "min_ctc: 2, surprise: 1"),
        GOOD + "cutoff: {ctc: 2}\n",
    ],
)
def test_malformed_panels_are_refused_in_one_line(text):
    with pytest.raises(PanelError) as caught:
        parse_panel(text, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda leaf: st.lists(leaf) | st.dictionaries(st.text(max_size=8), leaf),
    )
)
def test_any_yaml_is_a_panel_or_a_panel_error(value):
    with pytest.raises(PanelError):
        parse_panel(yaml.safe_dump(value), "any.yaml")


def test_an_unknown_panel_lists_those_there_are():
    with pytest.raises(PanelError, match=r"emt-4, epithelial-3"):
        load_panel("no-such")


def test_colours_of_a_panel_differ():
    for name in shipped_panels():
        colours = [channel.colour for channel in load_panel(name).channels]
        assert all(one != other for one, other in itertools.combinations(colours, 2))


def test_a_number_too_large_for_any_cell_is_refused(tmp_path):
    text = (resources.files("ctc_imaging") / "panels" / "emt-4.yaml").read_text(encoding="utf-8")
    huge = re.sub(r"max_gap_um: [0-9.]+", f"max_gap_um: {'9' * 400}", text)
    assert huge != text
    with pytest.raises(PanelError, match="malformed"):
        parse_panel(huge, tmp_path / "panel.yaml")
