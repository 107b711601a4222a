"""Which swapped channels are refused on simulated slides, swap by swap and setting by setting.

    python benchmarks/swapped_stains.py --panel emt-4 --slides 3

Every pair of a panel's channels is swapped on slides of unseen seeds, for patients, controls and samples with hardly
a cell. Prints how many of the slides were refused by `check_stains`; the first column, nothing swapped, must be 0.
All slides are SIMULATED.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile

from ctc_imaging.errors import SlideError
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.quality import assess
from ctc_imaging.simulation import SETTINGS, simulate_slide
from ctc_imaging.slide import open_slide
from ctc_imaging.staining import check_stains

FIRST_SEED = 700_000
"""Far from every seed used in tests."""

SHAPE_PX = (1024, 1024)

SAMPLES = (
    ("patient", 3, 500),
    ("patient", 40, 480),
    ("patient", 60, 20),
    ("patient", 2, 20),
    ("donor", 0, 500),
    ("spiked", 60, 60),
    ("stain_control", 100, 0),
    ("blank", 0, 4),
)
"""Kind of sample, CTCs and leukocytes."""


def main() -> None:
    """Print a table for each kind of sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", default="emt-4")
    parser.add_argument("--slides", type=int, default=3, help="of each setting and sample")
    options = parser.parse_args()
    panel = load_panel(options.panel)
    orders = {"none": tuple(range(len(panel.shorts)))}
    orders |= {f"{panel.shorts[a]}-{panel.shorts[b]}": _swapped(len(panel.shorts), a, b) for a, b in _pairs(panel)}
    for kind, ctc, leukocytes in SAMPLES:
        print(f"\n{kind}: {ctc} CTCs, {leukocytes} leukocytes; refused of {options.slides} slides")
        print(f"{'':17}" + "".join(f"{name:>11}" for name in orders))
        for setting in SETTINGS:
            refused = dict.fromkeys(orders, 0)
            for seed in range(FIRST_SEED, FIRST_SEED + options.slides):
                image = simulate_slide(SHAPE_PX, ctc, leukocytes, setting, seed, panel=panel.name).image
                for name, order in orders.items():
                    refused[name] += _is_refused(image[list(order)], panel, kind)
            print(f"{setting:17}" + "".join(f"{count:>11}" for count in refused.values()), flush=True)


def _pairs(panel: Panel) -> list[tuple[int, int]]:
    return list(combinations(range(len(panel.shorts)), 2))


def _swapped(channels: int, first: int, second: int) -> tuple[int, ...]:
    order = list(range(channels))
    order[first], order[second] = second, first
    return tuple(order)


def _is_refused(image: np.ndarray, panel: Panel, kind: str) -> bool:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scan.tif"
        tifffile.imwrite(path, image, photometric="minisblack")
        with open_slide(path, 0.5) as slide:
            quality = assess(slide, panel.assign(slide.channel_names, path), panel, kind)
    try:
        check_stains(quality.overlap, panel, kind, path)
    except SlideError:
        return True
    return False


if __name__ == "__main__":
    main()
