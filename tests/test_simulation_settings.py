"""The simulator's settings are pinned: these figures are the contract's, and may not drift."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ctc_imaging.simulation import SETTINGS, Setting
from ctc_imaging.simulation.settings import LogNormal

STANDARD = SETTINGS["standard"]


def changed(name: str) -> dict[str, object]:
    """What a setting changes of the standard one, its name and description aside."""
    fields = [field.name for field in dataclasses.fields(Setting) if field.name not in ("name", "meaning")]
    setting = SETTINGS[name]
    return {field: getattr(setting, field) for field in fields if getattr(setting, field) != getattr(STANDARD, field)}


def test_the_settings_of_the_contract_are_there_under_their_own_names():
    assert list(SETTINGS) == [
        "standard",
        "weak-stain",
        "bleed-through",
        "defocus",
        "dying",
        "aggregates",
        "mesenchymal-only",
        "size-inverted",
        "dense",
    ]
    assert all(setting.name == name for name, setting in SETTINGS.items())


def test_nobody_can_change_a_setting():
    with pytest.raises(TypeError):
        SETTINGS["standard"] = STANDARD  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        STANDARD.bleed_through = 0.5  # type: ignore[misc]


def test_standard_is_as_pinned():
    assert STANDARD.nucleus_snr.median == 30
    assert STANDARD.ctc_ck_snr == LogNormal.from_fifth_centile(12, 5)
    assert STANDARD.leukocyte_cd45_snr == LogNormal.from_fifth_centile(10, 3)
    assert STANDARD.leukocyte_vimentin_snr.median == 6
    assert STANDARD.ctc_diameter_um.median == 11
    assert STANDARD.ctc_diameter_range_um == (7, 18)
    assert STANDARD.leukocyte_diameter_um == (9.4, 1.6)
    assert STANDARD.lobed_fraction + STANDARD.kidney_fraction == pytest.approx(0.6)
    assert (STANDARD.bleed_through, STANDARD.psf_sigma_um) == (0.02, 0.35)
    assert (STANDARD.focus_error_um, STANDARD.vignetting) == (2, 0.2)
    assert (STANDARD.dye_aggregates, STANDARD.debris, STANDARD.naked_nuclei) == (5, 10, 20)
    assert (STANDARD.fibres, STANDARD.ck_fragments, STANDARD.nonspecific_ck) == (5, 2, 1)
    assert STANDARD.nonspecific_ck_snr.median == 6


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("weak-stain", {"snr_factor": 0.4}),
        ("bleed-through", {"bleed_through": 0.15}),
        ("defocus", {"focus_error_um": 8.0, "focus_field_by_field": True}),
        ("dying", {"dying_fraction": 0.25}),
        ("aggregates", {"dye_aggregates": 100.0, "aggregates_touching_fraction": 1 / 3}),
        ("mesenchymal-only", {"ctc_ck_max_snr": 1.5, "ctc_all_mesenchymal": True}),
        ("dense", {"touching_nuclei_fraction": 0.4}),
    ],
)
def test_each_harder_setting_differs_from_standard_in_what_it_is_named_after(name, difference):
    assert changed(name) == difference


def test_size_inverted_makes_ctcs_smaller_than_leukocytes():
    inverted = SETTINGS["size-inverted"]
    assert inverted.ctc_diameter_um.median == 8
    assert inverted.leukocyte_diameter_um[0] == 11


def test_a_log_normal_has_the_median_and_the_fifth_centile_it_was_made_from():
    values = LogNormal.from_fifth_centile(12, 5).draw(200_000, np.random.default_rng(0))
    assert np.median(values) == pytest.approx(12, rel=0.01)
    assert np.quantile(values, 0.05) == pytest.approx(5, rel=0.02)


def test_a_log_normal_with_cut_tails_keeps_its_limits_and_nearly_its_median():
    values = LogNormal(11, 0.21).draw_within(50_000, 7, 18, np.random.default_rng(0))
    assert values.min() >= 7
    assert values.max() <= 18
    assert np.median(values) == pytest.approx(11, rel=0.02)
