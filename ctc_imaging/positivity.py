"""Which markers a cell carries: against its own slide's leukocytes and background, and with what certainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.panel import Panel, Role

POSITIVE_SNR = 3.0
"""Signal over what isn't the marker's own, in units of the background's noise, from which a marker is positive."""

MARKERS = (Role.EPITHELIAL, Role.MESENCHYMAL)
"""Markers a phenotype is made of; their places in the network's positivity are 0 and 1."""

UNMARKED = 0.05
"""A chance of being positive of less is none: clear enough not to cost CTCs of weak stains."""

CLEARLY_BELOW = -0.3
"""In steps of `relative_signal`: an SNR of 2.2 where the threshold is 3."""

# Medians of fewer cells are a lottery.
MIN_LEUKOCYTES = 20
LEAST_SHARE = 0.25
_STEP = 0.06


@dataclass(frozen=True)
class PositivityScale:
    """From the network's logit and the signal against the slide's threshold to the chance of being positive.

    Logistic in the logit, ``network * logit + bias``, fitted on held-out slides; and no more than the signal allows: a
    cell whose signal stays clearly below its slide's threshold isn't positive, whatever it looks like.
    """

    network: float
    bias: float

    def probability(self, logit: np.ndarray, relative: np.ndarray) -> np.ndarray:
        """Return probabilities (n,) as float64.

        Parameters
        ----------
        logit : ndarray, shape (n,)
            Of the network, for this marker.
        relative : ndarray, shape (n,)
            Signal against the slide's threshold, see `relative_signal`.
        """
        looks = _logistic(self.network * logit.astype(np.float64) + self.bias)
        return looks * _logistic((relative - CLEARLY_BELOW) / _STEP)


def relative_signal(snr: np.ndarray, threshold: float) -> np.ndarray:
    """Return log-like steps above the slide's threshold, 0 on it."""
    return np.arcsinh(np.asarray(snr, np.float64)) - np.arcsinh(threshold)


def positive_from(cells: pd.DataFrame, panel: Panel) -> dict[str, float]:
    """Tell from which signal on a marker of this slide is positive.

    Leukocytes carry no epithelial marker: what they show of it (bleed-through, haze, sticky stain) is the slide's own
    zero, and a cell must exceed their median by `POSITIVE_SNR`. Where they are few among the slide's cells, all cells
    with a nucleus together are its zero, for what nearly all of them show marks none; but no more than
    `POSITIVE_SNR`, for on a control of tumour cells alone they all are positive. Leukocytes do carry vimentin, so the
    mesenchymal marker is held against the background alone.

    Parameters
    ----------
    cells : DataFrame
        With `call`, `nucleus_area_um2` and ``MARKER_snr``; as the model called them, where a person has since
        changed calls.
    panel : Panel

    Returns
    -------
    dict of str to float
        Short name of each phenotype marker of the panel to its threshold, in SNR.
    """
    call = cells["machine_call"] if "machine_call" in cells else cells["call"]
    nucleated = cells["nucleus_area_um2"] > 0
    leukocytes = nucleated & (call == "leukocyte")
    thresholds = {}
    for role in MARKERS:
        channel = panel.channel(role)
        if channel is not None:
            signal = cells[f"{channel.short}_snr"]
            zero = _zero(signal, nucleated, leukocytes) if role == Role.EPITHELIAL else 0.0
            thresholds[channel.short] = round(zero + POSITIVE_SNR, 3)
    return thresholds


def _zero(signal: pd.Series, nucleated: pd.Series, leukocytes: pd.Series) -> float:
    if leukocytes.sum() >= max(MIN_LEUKOCYTES, LEAST_SHARE * nucleated.sum()):
        return max(float(signal[leukocytes].median()), 0.0)
    if nucleated.sum() >= MIN_LEUKOCYTES:
        return float(np.clip(signal[nucleated].median(), 0.0, POSITIVE_SNR))
    return 0.0


def positivity(
    scales: Mapping[str, PositivityScale], logits: np.ndarray, cells: pd.DataFrame, panel: Panel
) -> dict[str, Any]:
    """Return ``p_ROLE`` (float64, to 6 decimals) of each phenotype marker; NaN where the panel has no such marker.

    Parameters
    ----------
    scales : mapping of str to PositivityScale
        By role, as in the model's description.
    logits : ndarray of float32, shape (n, 3)
        Of the network: epithelial, mesenchymal, leukocyte marker.
    cells : DataFrame
        As for `positive_from`.
    panel : Panel
    """
    thresholds = positive_from(cells, panel)
    columns = {}
    for place, role in enumerate(MARKERS):
        channel = panel.channel(role)
        p = np.full(len(cells), np.nan)
        if channel is not None:
            snr = cells[f"{channel.short}_snr"].to_numpy(float)
            relative = relative_signal(snr, thresholds[channel.short])
            p = scales[str(role)].probability(logits[:, place], relative).round(6)
        columns[f"p_{role}"] = p
    return columns


def unmarked(p_markers: np.ndarray) -> np.ndarray:
    """Tell which cells carry neither marker, and so can't be called CTC whatever else they look like.

    Parameters
    ----------
    p_markers : ndarray of float64, shape (n, 2)
        As from `positivity`, NaN where the panel has no such marker.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    return np.asarray((np.nan_to_num(p_markers) < UNMARKED).all(axis=1))


def _logistic(score: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(score, -50, 50)))
