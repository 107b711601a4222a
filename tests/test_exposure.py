"""Scans that were never exposed are refused with file, fault and remedy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import SlideError
from ctc_imaging.exposure import FULL_SCALES, Exposure, check_exposure

CHANNELS = {"dapi": 0, "ck": 3, "cd45": 2}
UINT16 = np.dtype(np.uint16)


def check(dtype=UINT16, **changed):
    """Check a good scan but for some channels' (minimum, maximum, share of pixels at the maximum)."""
    ranges = dict.fromkeys(CHANNELS, (90, 3000, 1e-6)) | changed
    exposures = {
        short: Exposure(low, high, round(share * 10**6), 10**6) for short, (low, high, share) in ranges.items()
    }
    check_exposure("scan.tif", CHANNELS, exposures, dtype)


def test_a_good_scan_passes():
    check()
    check(ck=(90, 65_535, 0.01))


@pytest.mark.parametrize("level", [0, 137])
def test_a_constant_channel_is_refused_by_name(level):
    with pytest.raises(SlideError) as caught:
        check(ck=(level, level, 1.0))
    assert str(caught.value).startswith(f"scan.tif: channel ck (3) is constant at {level}: it was never exposed")
    assert caught.value.remedy


def test_a_black_scan_is_refused_as_a_whole():
    with pytest.raises(SlideError, match="every channel is black"):
        check(**dict.fromkeys(CHANNELS, (0, 0, 1.0)))


@pytest.mark.parametrize(("low", "share"), [(4095, 1.0), (100, 0.6)])
def test_a_saturated_channel_is_refused(low, share):
    with pytest.raises(SlideError, match=r"channel cd45 \(2\) is saturated: .* shorter exposure"):
        check(cd45=(low, 4095, share))


def test_only_the_top_of_a_camera_is_saturation():
    check(cd45=(100, 3000, 0.6))
    check(np.dtype(np.float32), cd45=(0.0, 255.0, 0.6))


def test_a_constant_float_channel_is_refused():
    with pytest.raises(SlideError, match="constant at 255"):
        check(np.dtype(np.float32), dapi=(255.0, 255.0, 1.0))


@given(st.sampled_from(FULL_SCALES), st.integers(0, 1000), st.integers(0, 254))
def test_a_scan_is_refused_exactly_when_most_of_a_channel_is_clipped(top, per_mille, low):
    figures = {"dapi": (low, top, per_mille / 1000)}
    if per_mille > 500:
        with pytest.raises(SlideError):
            check(**figures)
    else:
        check(**figures)
