"""Shares and rates with their exact limits, as the tables of the classifier's benchmarks have them."""

from __future__ import annotations

from ctc_training.evaluate import poisson_rate, proportion


def share(count: int, total: int) -> str:
    """Return a share in per cent with its 95 % limits (Clopper 1934)."""
    found = proportion(count, total)
    if found["value"] is None:
        return "none there"
    value, low, high = (100 * float(found[key] or 0) for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def rate(count: int, leukocytes: int) -> str:
    """Return false calls per 100,000 leukocytes with their 95 % limits (Garwood 1936)."""
    found = poisson_rate(count, leukocytes)
    return f"{found['value']:,.1f} ({found['low']:,.1f}-{found['high']:,.1f})"
