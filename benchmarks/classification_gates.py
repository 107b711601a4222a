"""Gates as people set them by hand: thresholds on each cell's measured marker signals, as strict as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from skimage.filters import threshold_otsu

EPITHELIAL, MESENCHYMAL, LEUKOCYTE = 1, 2, 3
"""Columns of the signals, in the order of `ctc_imaging.classification.crops.ROLES`."""

OTSU, RELATIVE = "Otsu", "slide-relative"
USUAL = {OTSU: 1.0, RELATIVE: 3.0}
"""Strictness as set before one knows the outcome: Otsu's own thresholds, and three robust standard deviations."""

TO_SD = 1.4826
"""From the median absolute deviation to the standard deviation of a normal distribution."""

LEAST_SNR = 0.1
"""No threshold or deviation is smaller: it would be a tenth of the noise of one pixel."""

MOST_CANDIDATES = 400
"""Thresholds of the first marker tried when each marker has its own strictness."""


@dataclass(frozen=True)
class Gate:
    """A rule for CTCs: a tumour marker above its threshold, the leukocyte marker below its own.

    Both thresholds are found anew on each slide, from its cells that have a nucleus.

    Attributes
    ----------
    family : str
        `OTSU`: thresholds by Otsu (1979), multiplied (leukocyte marker: divided) by the strictness. `RELATIVE`: median
        of the slide's own leukocytes, which are the cells above Otsu's threshold of the leukocyte marker, and so many
        robust standard deviations (1.4826 MAD) above (leukocyte marker: below) as the strictness says.
    scale : str
        ``linear`` or ``arcsinh``, on which thresholds and deviations are found.
    vimentin : bool
        Whether the mesenchymal marker will do in place of the epithelial one.
    """

    family: str
    scale: str
    vimentin: bool

    def __str__(self) -> str:
        markers = "CK or vimentin" if self.vimentin else "CK"
        return f"{self.family}, {self.scale}, {markers}"

    @property
    def usual(self) -> float:
        """Strictness before one knows the outcome."""
        return USUAL[self.family]

    def margins(self, signal: np.ndarray) -> np.ndarray:
        """Tell up to which strictness each cell passes.

        Parameters
        ----------
        signal : ndarray of float, shape (n, 4)
            Mean signal-to-noise of the cells of one slide that have a nucleus, in the order of `ROLES`.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            By the tumour markers, and by the leukocyte marker; a cell passes the gate where both reach the strictness.
        """
        of_markers = self._by_otsu if self.family == OTSU else self._by_leukocytes
        epithelial, mesenchymal, leukocyte = of_markers(np.asarray(signal, np.float64))
        tumour = np.maximum(epithelial, mesenchymal) if self.vimentin else epithelial
        return np.stack([tumour, leukocyte], axis=1)

    def _by_otsu(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        epithelial, mesenchymal = (signal[:, m] / _otsu(signal[:, m], self.scale) for m in (EPITHELIAL, MESENCHYMAL))
        own = signal[:, LEUKOCYTE]
        return epithelial, mesenchymal, _otsu(own, self.scale) / own.clip(min=1e-6)

    def _by_leukocytes(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        stained = signal[:, LEUKOCYTE] >= _otsu(signal[:, LEUKOCYTE], "arcsinh")
        values = np.arcsinh(signal) if self.scale == "arcsinh" else signal
        middle = np.median(values[stained], axis=0)
        deviation = TO_SD * np.median(np.abs(values[stained] - middle), axis=0)
        steps = (values - middle) / deviation.clip(min=LEAST_SNR)
        return steps[:, EPITHELIAL], steps[:, MESENCHYMAL], -steps[:, LEUKOCYTE]


GATES = tuple(Gate(*parts) for parts in product((OTSU, RELATIVE), ("linear", "arcsinh"), (False, True)))


@dataclass(frozen=True)
class Outcome:
    """What passes at some strictness.

    Attributes
    ----------
    found, false : int
        CTCs, and cells that aren't.
    strictness : tuple of float
        Of the tumour markers and of the leukocyte marker.
    reached : bool
        Whether as many CTCs pass as were wanted.
    """

    found: int
    false: int
    strictness: tuple[float, float]
    reached: bool = True


def passing(margins: np.ndarray, is_ctc: np.ndarray, strictness: tuple[float, float]) -> Outcome:
    """Count what passes at a strictness."""
    passes = (margins >= strictness).all(axis=1)
    return Outcome(int((passes & is_ctc).sum()), int((passes & ~is_ctc).sum()), strictness)


def swept(margins: np.ndarray, is_ctc: np.ndarray, wanted: int) -> Outcome:
    """Return the strictest setting, the same for both markers, at which so many CTCs pass.

    Strictness stays above 0, where everything passes or half of the leukocytes do; where too few CTCs pass even there,
    that many are taken for wanted and the outcome says so.
    """
    falling = np.sort(margins[is_ctc].min(axis=1))[::-1]
    count = min(wanted, int((falling > 0).sum()))
    if not count:
        return Outcome(0, 0, (np.inf, np.inf), wanted == 0)
    outcome = passing(margins, is_ctc, (float(falling[count - 1]),) * 2)
    return Outcome(outcome.found, outcome.false, outcome.strictness, count == wanted)


def swept_apart(margins: np.ndarray, is_ctc: np.ndarray, wanted: int) -> Outcome:
    """Return the best that both markers' own strictness could do, had one known the truth: the fewest false calls."""
    best = swept(margins, is_ctc, wanted)
    of_ctc = margins[is_ctc & (margins > 0).all(axis=1)]
    count = min(wanted, len(of_ctc))
    if not count:
        return best
    for tumour in _thinned(np.unique(of_ctc[:, 0])):
        leukocyte = np.sort(of_ctc[of_ctc[:, 0] >= tumour, 1])[::-1]
        if len(leukocyte) < count:
            break
        outcome = passing(margins, is_ctc, (float(tumour), float(leukocyte[count - 1])))
        if outcome.false < best.false:
            best = Outcome(outcome.found, outcome.false, outcome.strictness, count == wanted)
    return best


def _otsu(values: np.ndarray, scale: str) -> float:
    """Return Otsu's threshold (1979, IEEE Trans Syst Man Cybern 9:62), in SNR."""
    if np.ptp(values) == 0:
        return LEAST_SNR
    found = np.sinh(threshold_otsu(np.arcsinh(values))) if scale == "arcsinh" else threshold_otsu(values)
    return max(float(found), LEAST_SNR)


def _thinned(rising: np.ndarray) -> np.ndarray:
    places = np.linspace(0, len(rising) - 1, min(len(rising), MOST_CANDIDATES)).round().astype(int)
    return rising[places]
