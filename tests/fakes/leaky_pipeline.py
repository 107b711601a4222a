"""A stand-in for the pipeline that tells whatever it knows of a slide, wherever it can."""

from __future__ import annotations

import logging
import sys
import warnings
from functools import partial

import fake_pipeline

from ctc_imaging.errors import SlideError


def process(entry, folder, settings):
    """Print and warn of a slide's path and names, then do as the fake pipeline, or fail telling all."""
    text = entry.slide.read_text()
    sys.stdout.write(f"reading {entry.slide} of {entry.slide.parent.name}\n")
    sys.stderr.write(f"{entry.slide.name!r}: odd metadata\n")
    warnings.warn(f"{entry.slide.stem} is odd", RuntimeWarning, stacklevel=1)
    logging.getLogger("tifffile").error("<TiffFile %r> has no pages", str(entry.slide))
    if "broken" in text:
        raise SlideError(entry.slide, f"damaged near the end of {entry.slide.name}", f"copy {entry.slide.stem} again")
    if "unreadable" in text:
        (entry.slide / "inside").read_bytes()
    if "long" in text:
        raise ValueError("x" * (480 - len("ValueError: ")) + f" {entry.slide}")
    return fake_pipeline.process(entry, folder, settings)


if __name__ == "__main__":
    import pytest
    from leaky_pipeline import process as importable

    from ctc_imaging import batch
    from ctc_imaging.cli import main

    with pytest.MonkeyPatch.context() as patched:
        fake_pipeline.without_heavy_parts(patched)
        patched.setattr(batch, "run_cohort", partial(batch.run_cohort, process=importable))
        sys.exit(main())
