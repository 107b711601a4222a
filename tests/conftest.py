"""What all tests share: hypothesis without deadlines, threads held to one, the copy under test."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import settings

import ctc_imaging

# torch's optimisers load triton, whose LLVM crashes the process when Mesa's, which a napari window loads, came first.
with contextlib.suppress(ImportError):
    import triton._C.libtriton  # noqa: F401

settings.register_profile("suite", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("suite")

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def tested_copy():
    """With CTC_IMAGING_TEST_WHEEL the suite must run on the installed wheel, else on the checkout."""
    in_checkout = Path(ctc_imaging.__file__).parent.parent == CHECKOUT
    assert in_checkout != bool(os.environ.get("CTC_IMAGING_TEST_WHEEL")), ctc_imaging.__file__


@pytest.fixture
def shared_data() -> Path:
    """Return the real data beside the checkout, or skip, saying so."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not at {folder}")
    return folder
