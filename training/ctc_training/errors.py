"""The error that training adds to those of `ctc_imaging.errors`."""

from __future__ import annotations

from ctc_imaging.errors import CtcImagingError


class DatasetError(CtcImagingError):
    """A training set is missing, damaged, too small, or would let a model see what it is measured on."""
