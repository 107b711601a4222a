"""Agreement of readers on the calls of cells: Cohen's and Fleiss' kappa, and agreement on one class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from ctc_imaging.agreement.estimate import (
    BY_CELL,
    UNDEFINED,
    Array,
    Estimate,
    estimate,
    exact_share,
    groups_of,
    half_width,
)
from ctc_imaging.errors import StatisticsError

_NO_WIDTH = 1e-12


def cohen_kappa(a: ArrayLike, b: ArrayLike, samples: ArrayLike | None = None) -> Estimate:
    """Cohen's kappa of two readers of the same cells.

    The standard error is that of Fleiss, Cohen and Everitt (Psychol Bull 1969;72:323-7), each cell's term summed over
    its sample first where there are samples enough, with n - 1 for n and Student's t.

    Parameters
    ----------
    a, b : array_like, shape (n,)
        What each reader called each cell.
    samples : array_like, shape (n,), optional
        Sample of each cell.

    Returns
    -------
    Estimate
        NaN where both readers gave all cells one and the same call. Where they never differ, the lower limit is that
        of the observed agreement (Clopper and Pearson), chance agreement taken as known.

    Raises
    ------
    StatisticsError
        If there are no cells, or not equally many.

    Examples
    --------
    >>> kappa = cohen_kappa(["ctc"] * 40 + ["artefact"] * 60, ["ctc"] * 30 + ["artefact"] * 70)
    >>> round(kappa.value, 3), round(kappa.low, 2), round(kappa.high, 2)
    (0.783, 0.66, 0.91)
    """
    first, second, classes = _coded(a, b)
    count = len(first)
    shares_a = np.bincount(first, minlength=classes) / count
    shares_b = np.bincount(second, minlength=classes) / count
    observed, chance = float((first == second).mean()), float(shares_a @ shares_b)
    if chance >= 1:
        return UNDEFINED
    kappa = (observed - chance) / (1 - chance)
    # Moving one cell moves observed agreement, and chance agreement by way of both readers' shares.
    of_chance = shares_b[first] + shares_a[second] - 2 * chance
    influence = ((first == second) - observed - (1 - kappa) * of_chance) / (1 - chance)
    return _of_kappa(kappa, influence, observed, chance, samples)


def fleiss_kappa(counts: ArrayLike, samples: ArrayLike | None = None) -> Estimate:
    """Fleiss' kappa of any number of readers, the same or others for each cell (Psychol Bull 1971;76:378-82).

    Limits are by Gwet's variance (Br J Math Stat Psychol 2008;61:29-48), which holds at any kappa; that of Fleiss, Nee
    and Landis (Psychol Bull 1979;86:974-7) holds at kappa = 0 only: it tests, and gives no limits.

    Parameters
    ----------
    counts : array_like of int, shape (n, classes)
        How many readers gave each cell each call; a cell with fewer than two is left out.
    samples : array_like, shape (n,), optional
        Sample of each cell.

    Returns
    -------
    Estimate
        As for `cohen_kappa`.

    Raises
    ------
    StatisticsError
        If no cell has two calls.
    """
    table, samples = _with_two(counts, samples)
    readers = table.sum(1)
    agreed = (table * (table - 1)).sum(1) / (readers * (readers - 1))
    shares = (table / readers[:, None]).mean(0)
    observed, chance = float(agreed.mean()), float((shares**2).sum())
    if chance >= 1:
        return UNDEFINED
    kappa = (observed - chance) / (1 - chance)
    of_chance = 2 * (table @ shares / readers - chance)
    influence = (agreed - observed - (1 - kappa) * of_chance) / (1 - chance)
    return _of_kappa(kappa, influence, observed, chance, samples)


def positive_agreement(a: ArrayLike, b: ArrayLike, call: str = "ctc", samples: ArrayLike | None = None) -> Estimate:
    """How often the second reader agrees where one calls a class: 2 × both / (2 × both + one of the two).

    Parameters
    ----------
    a, b : array_like, shape (n,)
        What each reader called each cell.
    call : str
        The class.
    samples : array_like, shape (n,), optional
        Sample of each cell.

    Returns
    -------
    Estimate
        NaN where neither reader gave the call. Limits by cell are exact: of the cells that either called so, the
        share that both did has Clopper and Pearson's limits, and agreement rises with that share. Limits by sample
        are as for `specific_agreement`.

    Raises
    ------
    StatisticsError
        If there are no cells, or not equally many.

    Examples
    --------
    >>> agreement = positive_agreement(["ctc", "ctc", "artefact"], ["ctc", "artefact", "artefact"])
    >>> round(agreement.value, 3), round(agreement.low, 2), round(agreement.high, 2)
    (0.667, 0.02, 0.99)
    """
    _coded(a, b)
    counts = np.stack([np.asarray(a) == call, np.asarray(b) == call], axis=1).sum(1)
    return specific_agreement(counts, np.full(len(counts), 2), samples)


def specific_agreement(calls: ArrayLike, readers: ArrayLike, samples: ArrayLike | None = None) -> Estimate:
    """How often another reader agrees where one calls a class, with any number of readers a cell.

    The chance that a second reader, drawn from those of a cell, gives the call that a first one gave (Cicchetti and
    Feinstein, J Clin Epidemiol 1990;43:551-8; for many readers Fleiss, Levin and Paik, Statistical Methods for Rates
    and Proportions, 3rd ed. 2003, ch. 18).

    Parameters
    ----------
    calls : array_like of int, shape (n,)
        How many readers gave each cell the call.
    readers : array_like of int, shape (n,)
        How many read it; a cell with fewer than two is left out.
    samples : array_like, shape (n,), optional
        Sample of each cell.

    Returns
    -------
    Estimate
        Limits by the delta method on the logit, or exact where two readers read all cells and limits are by cell.
    """
    given, read = np.asarray(calls, float), np.asarray(readers, float)
    kept = read >= 2
    given, read = given[kept], read[kept]
    agreed, possible = given * (given - 1), given * (read - 1)
    if possible.sum() == 0:
        return UNDEFINED
    share = float(agreed.sum() / possible.sum())
    group, by = groups_of(None if samples is None else np.asarray(samples)[kept], len(given))
    influence = (agreed - share * possible) / possible.mean()
    if share in (0.0, 1.0) or (by == BY_CELL and (read == 2).all()):
        return estimate(share, *_exact_agreement(given, read), BY_CELL)
    width = half_width(influence, group) / (share * (1 - share))
    low, high = expit(logit(share) - width), expit(logit(share) + width)
    return estimate(share, low, high, by)


def call_counts(calls: ArrayLike, classes: int) -> NDArray[np.intp]:
    """Count the calls of each cell: (n, readers) of class numbers, -1 where a reader hasn't read it → (n, classes)."""
    table = np.asarray(calls)
    return np.stack([(table == number).sum(1) for number in range(classes)], axis=1)


def _coded(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    first, second = np.asarray(a), np.asarray(b)
    if len(first) == 0 or len(first) != len(second):
        fault = f"two readers have called {len(first)} and {len(second)} cells"
        raise StatisticsError("agreement", fault, "give each reader's call of the same cells, at least one")
    names, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    return codes[: len(first)], codes[len(first) :], len(names)


def _with_two(counts: ArrayLike, samples: ArrayLike | None) -> tuple[Array, ArrayLike | None]:
    table = np.asarray(counts, float)
    kept = table.sum(1) >= 2
    if not kept.any():
        raise StatisticsError("agreement", "no cell was read by two readers", "let a second reader read the same cells")
    return table[kept], None if samples is None else np.asarray(samples)[kept]


def _of_kappa(kappa: float, influence: Array, observed: float, chance: float, samples: ArrayLike | None) -> Estimate:
    count = len(influence)
    group, by = groups_of(samples, count)
    width = half_width(influence, group)
    # Where readers never or always differ no cell moves kappa, which is no certainty.
    if observed == 1 or width < _NO_WIDTH:
        shares = np.array(exact_share(round(observed * count), count))
        low, high = np.clip((shares - chance) / (1 - chance), -1, 1)
        return estimate(kappa, low, high, BY_CELL)
    low, high = np.clip([kappa - width, kappa + width], -1, 1)
    return estimate(kappa, low, high, by)


def _exact_agreement(given: Array, read: Array) -> tuple[float, float]:
    """Limits where two readers agree on a share q of the cells that either called so: agreement is 2 q / (1 + q)."""
    low, high = exact_share(int((given == read).sum()), int((given > 0).sum()))
    return 2 * low / (1 + low), 2 * high / (1 + high)
