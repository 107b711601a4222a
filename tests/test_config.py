"""Settings: defaults, a YAML file, options, and one line for whatever is wrong with them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.config import Settings, load_settings
from ctc_imaging.errors import ConfigError

SETTINGS = st.builds(
    Settings,
    panel=st.sampled_from(["emt-4", "epithelial-3", "/lab/panel.yaml"]),
    model=st.text(min_size=1, max_size=8),
    seed=st.integers(0, 2**31),
    tile_px=st.integers(256, 8192),
    landmark_day=st.integers(0, 90),
    horizon_days=st.integers(91, 3650),
)


@given(SETTINGS)
def test_settings_survive_json(settings):
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings


@given(SETTINGS, st.sampled_from(["panel", "model", "nuclei"]))
def test_the_hash_leaves_names_and_paths_out(settings, field):
    other = Settings(**{**asdict(settings), field: "/elsewhere/x"})
    assert other.hash == settings.hash


@given(SETTINGS, SETTINGS)
def test_equal_hashes_mean_equal_figures(one, other):
    compared = ("seed", "tile_px", "landmark_day", "horizon_days")
    same = all(getattr(one, name) == getattr(other, name) for name in compared)
    assert (one.hash == other.hash) == same


def test_options_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 4\nlandmark_day: 60\n")
    settings = load_settings(file, seed=5, model=None)
    assert settings == Settings(seed=5, landmark_day=60)


def test_an_empty_file_and_a_byte_order_mark_are_fine(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("")
    assert load_settings(file) == Settings()
    file.write_bytes(b"\xef\xbb\xbfseed: 2\n")
    assert load_settings(file).seed == 2


def test_a_panel_beside_the_file_is_found_from_anywhere(tmp_path):
    (tmp_path / "ours.yaml").write_text("name: ours\n")
    file = tmp_path / "settings.yaml"
    file.write_text("panel: ours.yaml\n")
    assert load_settings(file).panel == str(tmp_path / "ours.yaml")
    file.write_text("panel: epithelial-3\n")
    assert load_settings(file).panel == "epithelial-3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sed: 1", "did you mean seed?"),
        ("landmark-day: 1", "did you mean landmark_day?"),
        ("colour: red", "known settings are"),
        ("seed: one", "isn't a whole number"),
        ("seed: true", "isn't a whole number"),
        ("seed: -1", "too small"),
        ("tile_px: 16", "too small"),
        ("model: 3", "isn't a name"),
        ("landmark_day: 30\nhorizon_days: 30", "isn't after the landmark"),
        ("- seed", "not a list of settings"),
        ("seed: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file(tmp_path, text, said):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert said in str(caught.value)
    assert "settings.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_binary_one_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="not YAML"):
        load_settings(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        load_settings(tmp_path)


def test_an_option_without_meaning_is_refused():
    with pytest.raises(ConfigError, match="too small"):
        load_settings(seed=-1)
    with pytest.raises(ConfigError, match="isn't after the landmark"):
        load_settings(horizon_days=10)


def test_a_panel_name_too_long_for_a_file_is_no_file(tmp_path):
    (tmp_path / "config.yaml").write_text(f"panel: {'x' * 5000}\n")
    assert load_settings(tmp_path / "config.yaml").panel == "x" * 5000
