"""The pinned settings of the simulator, so that a figure measured on one means the same next year."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Z_5TH_CENTILE = 1.6448536269514722


@dataclass(frozen=True)
class LogNormal:
    """A log-normal figure of a cell population, by its median and the spread of its logarithm."""

    median: float
    sigma: float

    @classmethod
    def from_fifth_centile(cls, median: float, fifth: float) -> LogNormal:
        """The log-normal with this median and 5th centile."""
        return cls(median, log(median / fifth) / Z_5TH_CENTILE)

    def at(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values at standard normal scores `z`."""
        return self.median * np.exp(self.sigma * z)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw `count` values."""
        return self.at(rng.standard_normal(count))

    def draw_within(self, count: int, low: float, high: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw `count` values, the tails beyond [`low`, `high`] cut off."""
        edges = ndtr(np.log(np.array([low, high]) / self.median) / self.sigma)
        return self.at(ndtri(rng.uniform(edges[0], edges[1], count)))


_CTC_CK_SNR = LogNormal.from_fifth_centile(12.0, 5.0)
_LEUKOCYTE_CD45_SNR = LogNormal.from_fifth_centile(10.0, 3.0)


@dataclass(frozen=True)
class Setting:
    """Everything that is pinned about a simulated slide.

    Lengths in µm; SNR is the mean signal over a cell's own compartment, less the local background,
    over the noise (standard deviation) of that background's pixels. Rates are per 1,000 leukocytes.
    """

    name: str
    meaning: str
    nucleus_snr: LogNormal = LogNormal(30.0, 0.3)
    ctc_ck_snr: LogNormal = _CTC_CK_SNR
    ctc_ck_max_snr: float | None = None
    ctc_vimentin_snr: LogNormal = LogNormal(14.0, 0.4)
    ctc_all_mesenchymal: bool = False
    leukocyte_cd45_snr: LogNormal = _LEUKOCYTE_CD45_SNR
    leukocyte_vimentin_snr: LogNormal = LogNormal(6.0, 0.4)
    nonspecific_ck_snr: LogNormal = LogNormal(6.0, 0.2)
    snr_factor: float = 1.0
    ctc_diameter_um: LogNormal = LogNormal(11.0, 0.21)
    ctc_diameter_range_um: tuple[float, float] = (7.0, 18.0)
    leukocyte_diameter_um: tuple[float, float] = (9.4, 1.6)
    lobed_fraction: float = 0.4
    kidney_fraction: float = 0.2
    ctc_clustered_fraction: float = 0.10
    ctc_leukocyte_cluster_fraction: float = 0.05
    touching_nuclei_fraction: float = 0.0
    dying_fraction: float = 0.0
    dye_aggregates: float = 5.0
    aggregates_touching_fraction: float = 0.0
    debris: float = 10.0
    naked_nuclei: float = 20.0
    fibres: float = 5.0
    ck_fragments: float = 2.0
    nonspecific_ck: float = 1.0
    platelets: float = 20.0
    bleed_through: float = 0.02
    psf_sigma_um: float = 0.35
    focus_error_um: float = 2.0
    focus_field_by_field: bool = False
    focus_offset_um: float = 0.0
    vignetting: float = 0.20


_STANDARD = Setting("standard", "a well stained, well focused slide")

_ALL = (
    _STANDARD,
    replace(_STANDARD, name="weak-stain", meaning="all marker SNR x 0.4", snr_factor=0.4),
    replace(_STANDARD, name="bleed-through", meaning="15 % between neighbouring channels", bleed_through=0.15),
    replace(
        _STANDARD,
        name="defocus",
        meaning="focus error of up to 8 µm, field by field",
        focus_error_um=8.0,
        focus_field_by_field=True,
    ),
    replace(_STANDARD, name="dying", meaning="25 % of all cells blebbing or broken", dying_fraction=0.25),
    replace(
        _STANDARD,
        name="aggregates",
        meaning="dye aggregates x 20, a third of them touching leukocytes",
        dye_aggregates=20 * _STANDARD.dye_aggregates,
        aggregates_touching_fraction=1 / 3,
    ),
    replace(
        _STANDARD,
        name="mesenchymal-only",
        meaning="CTCs with CK SNR below 1.5 and vimentin SNR median 14",
        ctc_ck_max_snr=1.5,
        ctc_all_mesenchymal=True,
    ),
    replace(
        _STANDARD,
        name="size-inverted",
        meaning="CTCs smaller than leukocytes",
        ctc_diameter_um=LogNormal(8.0, 0.21),
        ctc_diameter_range_um=(5.0, 13.0),
        leukocyte_diameter_um=(11.0, 1.6),
    ),
    replace(_STANDARD, name="dense", meaning="40 % of nuclei touch another", touching_nuclei_fraction=0.4),
)

SETTINGS: Mapping[str, Setting] = MappingProxyType({setting.name: setting for setting in _ALL})
"""The pinned settings by name; the first, ``standard``, is the default."""
