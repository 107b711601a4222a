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

# Medians of fewer cells are a lottery.
MIN_LEUKOCYTES = 20


@dataclass(frozen=True)
class PositivityScale:
    """From the network's logit and the signal against the slide's threshold to the chance of being positive.

    Logistic: ``network * logit + signal * (arcsinh(snr) - arcsinh(threshold)) + bias``, fitted on held-out slides.
    """

    network: float
    signal: float
    bias: float

    def probability(self, logit: np.ndarray, snr: np.ndarray, threshold: float) -> np.ndarray:
        """Return probabilities (n,) as float64.

        Parameters
        ----------
        logit : ndarray, shape (n,)
            Of the network, for this marker.
        snr : ndarray, shape (n,)
            Mean signal over the cell, ``MARKER_snr`` of its row.
        threshold : float
            As from `positive_from`.
        """
        score = self.network * logit.astype(np.float64) + self.signal * relative_signal(snr, threshold) + self.bias
        return 1 / (1 + np.exp(-np.clip(score, -50, 50)))


def relative_signal(snr: np.ndarray, threshold: float) -> np.ndarray:
    """Return log-like steps above the slide's threshold, 0 on it."""
    return np.arcsinh(np.asarray(snr, np.float64)) - np.arcsinh(threshold)


def positive_from(cells: pd.DataFrame, panel: Panel) -> dict[str, float]:
    """Tell from which signal on a marker of this slide is positive.

    Leukocytes carry no epithelial marker: what they show of it (bleed-through, haze, sticky stain) is the slide's own
    zero, and a cell must exceed their median by `POSITIVE_SNR`. They do carry vimentin, so the mesenchymal marker is
    held against the background alone.

    Parameters
    ----------
    cells : DataFrame
        With `call` and ``MARKER_snr``; as the model called them, where a person has since changed calls.
    panel : Panel

    Returns
    -------
    dict of str to float
        Short name of each phenotype marker of the panel to its threshold, in SNR.
    """
    call = cells["machine_call"] if "machine_call" in cells else cells["call"]
    leukocytes = cells[call == "leukocyte"]
    thresholds = {}
    for role in MARKERS:
        channel = panel.channel(role)
        if channel is None:
            continue
        zero = 0.0
        if role == Role.EPITHELIAL and len(leukocytes) >= MIN_LEUKOCYTES:
            zero = max(float(leukocytes[f"{channel.short}_snr"].median()), 0.0)
        thresholds[channel.short] = round(zero + POSITIVE_SNR, 3)
    return thresholds


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
        With `call` and ``MARKER_snr``.
    panel : Panel
    """
    thresholds = positive_from(cells, panel)
    columns = {}
    for place, role in enumerate(MARKERS):
        channel = panel.channel(role)
        p = np.full(len(cells), np.nan)
        if channel is not None:
            snr = cells[f"{channel.short}_snr"].to_numpy(float)
            p = scales[str(role)].probability(logits[:, place], snr, thresholds[channel.short]).round(6)
        columns[f"p_{role}"] = p
    return columns
