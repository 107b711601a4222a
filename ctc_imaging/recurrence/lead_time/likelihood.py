"""The likelihood of blood samples and scans together, integrated over the hidden onset and the hidden relapse.

Relapse comes at R with a piecewise constant hazard. In a share of relapsers CTCs are positive before R: in some of them
since surgery, in the others from L days before R on, and no earlier than surgery; L is independent of R. A sample is
positive with one chance before the onset (a false alarm) and another after it. Scans say only between which days R
lies. Such models come from screening, where the lead is the sojourn time (Day and Walter, Biometrics 1984;40:1-14), and
from doubly censored data (De Gruttola and Lagakos, Biometrics 1989;45:1-11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from ctc_imaging.recurrence.lead_time.distributions import log_days

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.lead_time.distributions import Lead
    from ctc_imaging.recurrence.lead_time.observations import Observations

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]

# Names of the parameters that follow the log rates of relapse.
SHARE, SINCE_SURGERY, FALSE, SEEN, LOG_SCALE, LOG_SHAPE = range(6)
PARAMETERS = 6
_PANEL_DAYS = 45.0
_NODES, _FUTURE_NODES = 5, 3
# Beyond what was observed a relapse is looked for up to here, in panels that grow by half.
_FUTURE_DAYS = 2000.0
_PANEL_GROWTH = 1.5
# Keeps the logarithm of an impossible patient finite.
_LEAST = 1e-300


@dataclass(frozen=True)
class Likelihood:
    """The observations, laid out for quick evaluation.

    Parameters
    ----------
    knots : ndarray of float64, shape (rates - 1,)
        Days at which the hazard of relapse changes.
    lead : Lead
        Shape of the lead's distribution.
    log_lags : ndarray of float64, shape (nodes, samples)
        Log days from each sample of the patient to each possible day of relapse, as of `distributions.log_days`.
    patient : ndarray of intp, shape (nodes,)
        Whose node it is.
    weight : ndarray of float64, shape (nodes,)
        Days that the node stands for.
    node_exposure, end_exposure : ndarray of float64, shape (nodes, rates), (patients, rates)
        Days spent in each piece of the hazard, up to the node and up to the end of the future looked at.
    node_piece : ndarray of bool, shape (nodes, rates)
        In which piece the node lies.
    open_end : ndarray of bool, shape (patients,)
        Whether no relapse was found.
    positive_before, negative_before, positive_after, negative_after : ndarray of float64, shape (patients, samples + 1)
        Samples of each kind before and after an onset that follows the k-th sample.
    """

    knots: Floats
    lead: Lead
    log_lags: Floats
    patient: Ints
    weight: Floats
    node_exposure: Floats
    end_exposure: Floats
    node_piece: NDArray[np.bool_]
    open_end: NDArray[np.bool_]
    positive_before: Floats
    negative_before: Floats
    positive_after: Floats
    negative_after: Floats

    @property
    def rates(self) -> int:
        """Number of pieces of the hazard of relapse."""
        return len(self.knots) + 1

    def value_and_gradient(self, parameters: Floats) -> tuple[float, Floats]:
        """Log-likelihood, and its derivatives."""
        values, scores = self.by_patient(parameters)
        return float(values.sum()), scores.sum(axis=1)

    def by_patient(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Each patient's log-likelihood (patients,), and its derivatives (parameters, patients).

        Parameters
        ----------
        parameters : ndarray of float64, shape (rates + 6,)
            Log rates a day; logits of the share of relapsers positive before, of those among them positive since
            surgery, of a false and of a true positive sample; the lead's two.
        """
        rest = parameters[self.rates :]
        share, since, false, seen = (float(expit(rest[place])) for place in (SHARE, SINCE_SURGERY, FALSE, SEEN))
        early, by_scale, by_shape = self.lead.cdf_and_slopes(self.log_lags, rest[LOG_SCALE], rest[LOG_SHAPE])
        chance, by_false, by_seen = self._samples_by_onset(false, seen)
        density, beyond = self._relapse(parameters[: self.rates])
        who, always = self.patient, share * since
        first, never = chance[:, 0], chance[:, -1]
        step = np.diff(chance, axis=1)[who]

        def total(near: Floats, far: Floats | float) -> Floats:
            """Sum over the nodes, and add relapses of the far future."""
            return np.asarray(np.bincount(who, density * near, len(beyond)) + beyond * far)

        def mixed(part: Floats) -> tuple[Floats, Floats]:
            """Weigh samples by where the onset may lie, for each node and for relapses of the far future.

            A relapse of the far future has no onset yet, unless CTCs are positive since surgery.
            """
            later = (1 - since) * _dot(early, np.diff(part, axis=1)[who])
            near = (1 - share) * part[who, -1] + share * (part[who, 0] + later)
            return near, (1 - always) * part[:, -1] + always * part[:, 0]

        near, far = mixed(chance)
        later = (1 - since) * _dot(early, step)
        slopes = {
            SHARE: share * (1 - share) * total((first - never)[who] + later, since * (first - never)),
            SINCE_SURGERY: always * total(-later, (1 - since) * (first - never)),
            FALSE: total(*mixed(by_false)),
            SEEN: total(*mixed(by_seen)),
            LOG_SCALE: share * (1 - since) * total(_dot(by_scale, step), 0.0),
            LOG_SHAPE: share * (1 - since) * total(_dot(by_shape, step), 0.0),
        }
        by_rate = [
            total(near * (self.node_piece[:, piece] - rate * self.node_exposure[:, piece]), 0.0)
            - beyond * far * rate * self.end_exposure[:, piece]
            for piece, rate in enumerate(np.exp(parameters[: self.rates]))
        ]
        value = np.maximum(total(near, far), _LEAST)
        return np.log(value), np.array([*by_rate, *(slopes[place] for place in range(PARAMETERS))]) / value

    def _relapse(self, log_rates: Floats) -> tuple[Floats, Floats]:
        """Chance of relapse at each node, and of none in the future looked at."""
        rate = np.exp(log_rates)
        density = self.weight * np.exp(self.node_piece @ log_rates - self.node_exposure @ rate)
        return density, np.where(self.open_end, np.exp(-self.end_exposure @ rate), 0.0)

    def _samples_by_onset(self, false: float, seen: float) -> tuple[Floats, Floats, Floats]:
        """Chance of each patient's samples by the place of the onset, with derivatives to both logits."""
        logs = self.positive_before * np.log(false) + self.negative_before * np.log1p(-false)
        logs += self.positive_after * np.log(seen) + self.negative_after * np.log1p(-seen)
        chance = np.exp(logs)
        by_false = self.positive_before * (1 - false) - self.negative_before * false
        by_seen = self.positive_after * (1 - seen) - self.negative_after * seen
        return chance, chance * by_false, chance * by_seen


def lay_out(observed: Observations, knots: Floats, lead: Lead) -> Likelihood:
    """Place the quadrature's nodes and count the samples on both sides of each possible onset.

    Parameters
    ----------
    observed : Observations
    knots : ndarray of float64
        Days at which the hazard of relapse changes.
    lead : Lead

    Returns
    -------
    Likelihood
    """
    open_end = ~np.isfinite(observed.right)
    ends = np.where(open_end, observed.left + _FUTURE_DAYS, observed.right)
    spans = [_nodes(*bounds) for bounds in zip(observed.left, ends, open_end, strict=True)]
    days, weight = (np.concatenate([span[part] for span in spans]) for part in (0, 1))
    patient = np.repeat(np.arange(len(spans)), [len(span[0]) for span in spans])
    edges = np.concatenate([[0.0], knots, [np.inf]])
    counts = _counts(observed)
    return Likelihood(
        knots,
        lead,
        log_days(days[:, None] - observed.sample_days[patient]),
        patient,
        weight,
        exposures(days, knots),
        exposures(ends, knots),
        (days[:, None] > edges[:-1]) & (days[:, None] <= edges[1:]),
        open_end,
        *counts,
    )


def exposures(days: Floats, knots: Floats) -> Floats:
    """Days up to each of `days` (m,) that lie in each piece of the hazard, shape (m, knots + 1)."""
    edges = np.concatenate([[0.0], knots, [np.inf]])
    return np.asarray(np.clip(days[:, None] - edges[:-1], 0.0, np.diff(edges)))


def _nodes(left: float, right: float, open_end: bool) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights in panels over (left, right]; panels grow where nothing was observed."""
    if right <= left:
        return np.array([right]), np.array([1.0])
    if open_end:
        widths = _PANEL_DAYS * _PANEL_GROWTH ** np.arange(30)
        edges = left + np.concatenate([[0.0], np.cumsum(widths)])
        edges = np.append(edges[edges < right], right)
    else:
        edges = np.linspace(left, right, int(np.ceil((right - left) / _PANEL_DAYS)) + 1)
    node, weight = np.polynomial.legendre.leggauss(_FUTURE_NODES if open_end else _NODES)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    return (middle[:, None] + half[:, None] * node).ravel(), (half[:, None] * weight).ravel()


def _counts(observed: Observations) -> tuple[Floats, Floats, Floats, Floats]:
    taken = np.isfinite(observed.sample_days)
    sides = []
    for is_kind in (observed.positive & taken, ~observed.positive & taken):
        before = np.concatenate([np.zeros((len(taken), 1)), np.cumsum(is_kind, axis=1)], axis=1)
        sides.append((before, before[:, -1:] - before))
    (positive_before, positive_after), (negative_before, negative_after) = sides
    return positive_before, negative_before, positive_after, negative_after


def _dot(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", first, second))
