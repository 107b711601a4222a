"""Scales on which figures of slides spread evenly, so that one rule judges stains, sizes and shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

_LEAST = 1e-9


def to_scale(scale: str, values: ArrayLike) -> Values:
    """Bring values to a scale.

    Parameters
    ----------
    scale : {"arcsinh", "log", "certainty", "share"}
        ``arcsinh`` for signals, which may be zero or below; ``log`` for what is above zero; ``share`` twice the
        arcsine of the root, on which every share of n cells has the variance 1 / n (Anscombe, Biometrika
        1948;35:246-54); ``certainty`` the same of what is missing to 1.
    values : array_like of float
        NaN stays NaN.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> round(float(to_scale("share", 0.25)), 4), round(float(to_scale("certainty", 0.99)), 4)
    (1.0472, 0.2003)
    """
    own = np.asarray(values, dtype=np.float64)
    if scale == "arcsinh":
        return np.arcsinh(own)
    if scale == "log":
        return np.log(np.maximum(own, _LEAST))
    return 2 * np.arcsin(np.sqrt(np.clip(own if scale == "share" else 1 - own, 0, 1)))


def from_scale(scale: str, values: ArrayLike) -> Values:
    """Bring values back from a scale; see `to_scale`.

    Examples
    --------
    >>> round(float(from_scale("share", to_scale("share", 0.03))), 6)
    0.03
    """
    scaled = np.asarray(values, dtype=np.float64)
    if scale == "arcsinh":
        return np.sinh(scaled)
    if scale == "log":
        return np.exp(scaled)
    share = np.sin(np.clip(scaled, 0, np.pi) / 2) ** 2
    return share if scale == "share" else 1 - share


def ratio_limits(scale: str, centre: float, ratio: float) -> tuple[float, float]:
    """Where a value is `ratio` times less and more than a centre; both are on the scale.

    A signal is compared on its own scale: ten per cent of no signal would be nothing.

    Examples
    --------
    >>> [round(float(limit), 3) for limit in from_scale("share", ratio_limits("share", to_scale("share", 0.04), 2))]
    [0.02, 0.08]
    """
    if scale in ("share", "certainty"):
        share = float(from_scale("share", centre))
        low, high = to_scale("share", [share / ratio, share * ratio])
        return float(low), float(high)
    return centre - float(np.log(ratio)), centre + float(np.log(ratio))
