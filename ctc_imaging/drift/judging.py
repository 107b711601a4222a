"""The alarm: a batch, alone or with the two before it, lies farther from training than chance and of consequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from ctc_imaging.batch_quality.batches import batch_names
from ctc_imaging.batch_quality.staining import deviations
from ctc_imaging.drift.figures import FIGURES, Figure
from ctc_imaging.drift.reference import comparable, key_of
from ctc_imaging.drift.scales import from_scale, ratio_limits, to_scale

# In the RUN folder: one row a slide and figure.
DRIFT_CSV = "drift.csv"
DRIFT_COLUMNS = (
    *("slide_id", "sample_id", "sample_date", "site", "batch", "batch_name", "panel", "kind", "figure", "channel"),
    *("role", "cells", "value", "against", "expected", "batch_value", "low", "high", "alarm"),
)
_MEASURED = (
    *("slide_id", "sample_id", "sample_date", "site", "batch", "panel", "kind", "figure", "channel", "role"),
    *("cells", "value"),
)
# Told by `batch_quality.batch_shifts` where only batches can be compared.
_STAINS = ("leukocyte_snr", "background", "noise")
FALSE_ALARMS = 0.01
"""At most this share of batches like those of training sounds an alarm, whatever the number of figures."""

TRAINING, OTHERS = "training", "other batches"
ALONE, RUN = "batch", "run of three"
_IN_A_RUN = 3
# No two slides are more alike than this, on any scale; noise is measured in whole grey levels.
_LEAST_SPREAD = 0.01
# With fewer batches beside it nobody can say which of them is the odd one.
_MIN_BATCHES = 5


class _Batch(NamedTuple):
    """A figure of one batch on its scale, with its variance, and the places of its slides in the table."""

    rows: NDArray[np.intp]
    value: float
    variance: float


class _Verdict(NamedTuple):
    """What is said of a figure of one batch; numbers are on the figure's scale."""

    batch: _Batch
    figure: str
    against: str
    expected: float
    low: float
    high: float
    alarm: str


def judge_drift(
    rows: Iterable[Mapping[str, Any]],
    reference: Mapping[str, Any] | None,
    simulated: bool,
) -> pd.DataFrame:
    """Hold every batch against the training reference.

    A control chart of each figure (Shewhart), with Student's limits, since the reference itself is estimated from few
    slides. The alarm sounds if a batch, or it and the two before it together (a moving average, restarted after an
    alarm; Roberts, Technometrics 1959;1:239-50), lies beyond the limits. These are set so that of batches like
    training's at most `FALSE_ALARMS` sound any alarm: the chance is shared by all figures and both rules (Bonferroni,
    as Rabanser, NeurIPS 2019, found it to serve for the outputs of a classifier). What is within `Figure.ratio` of
    the expected is of no consequence and no alarm (Woodall and Faltin, Qual Eng 2019;31:493-502).

    Without a reference each batch is compared with at least four others of its panel and site, by the rule of
    `batch_quality.deviations`; stains aren't, since `batch_quality.batch_shifts` does.

    Parameters
    ----------
    rows : iterable of mapping
        As from `drift_rows`, of all slides.
    reference : mapping or None
        As from `make_reference`.
    simulated : bool
        Whether the slides are simulated: grey levels are held against those of like slides only.

    Returns
    -------
    DataFrame
        `DRIFT_COLUMNS`. `expected`, `batch_value` and the limits `low` and `high` are in the figure's own unit. They
        are missing where nothing can be judged, and a limit where that side is no alarm. `against` is ``training`` or
        ``other batches``, and `alarm` is ``batch``, ``run of three`` or empty.
    """
    table = pd.DataFrame(list(rows), columns=[name for name in DRIFT_COLUMNS if name in _MEASURED])
    table["batch_name"] = batch_names(table)
    verdicts: list[_Verdict] = []
    for _, pool in table.groupby(["panel", "site"], sort=False):
        if reference is None:
            verdicts += _against_others(pool)
        else:
            verdicts += _against_training(pool, reference, comparable(reference, _roles_of(pool), simulated))
    return _with_verdicts(table, verdicts)[list(DRIFT_COLUMNS)]


def _with_verdicts(table: pd.DataFrame, verdicts: Iterable[_Verdict]) -> pd.DataFrame:
    """Write every batch's verdict to the rows of its slides, in the figure's own unit."""
    figures = np.full((len(table), 4), np.nan)
    words = np.full((len(table), 2), "", object)
    for verdict in verdicts:
        batch, scale = verdict.batch, FIGURES[verdict.figure].scale
        limits = [np.nan if np.isinf(limit) else limit for limit in (verdict.low, verdict.high)]
        # Certainty counts down from 1, so that its lower limit is the higher number on its scale.
        limits = limits[::-1] if scale == "certainty" else limits
        figures[batch.rows] = from_scale(scale, [verdict.expected, batch.value, *limits])
        words[batch.rows] = verdict.against, verdict.alarm
    named = {name: figures[:, place] for place, name in enumerate(("expected", "batch_value", "low", "high"))}
    return table.assign(**named, against=words[:, 0], alarm=words[:, 1])


def _against_training(pool: pd.DataFrame, reference: Mapping[str, Any], keys: set[str]) -> Iterator[_Verdict]:
    judged = [key for key in keys if FIGURES[key.partition("/")[0]].judged]
    named = [key_of(figure, role) for figure, role in zip(pool["figure"], pool["role"], strict=True)]
    for key, same in pool.assign(key=named).groupby("key", sort=False)[[*pool]]:
        if str(key) not in keys:
            continue
        name = str(same["figure"].iloc[0])
        known, figure = reference["figures"][str(key)], FIGURES[name]
        batches = [_pooled(batch, figure, known) for batch in _by_date(same)]
        limits = _Limits(figure, known, tests=2 * len(judged))
        if not figure.judged:
            yield from (_Verdict(batch, name, TRAINING, limits.centre, np.nan, np.nan, "") for batch in batches)
            continue
        for batch, alarm in zip(batches, _alarms(batches, limits), strict=True):
            yield _Verdict(batch, name, TRAINING, limits.centre, *limits.around([batch]), alarm)


def _roles_of(pool: pd.DataFrame) -> set[str]:
    """Roles of the panel that slides were stained with: every channel has a background."""
    return set(pool.loc[pool["figure"].isin(["background", "noise"]), "role"])


def _alarms(batches: Sequence[_Batch], limits: _Limits) -> Iterator[str]:
    """Say of each batch, in order of date, whether it alone or with the two before it lies beyond the limits."""
    since: list[_Batch] = []
    for batch in batches:
        since = [*since, batch][-_IN_A_RUN:]
        alarm = ""
        if limits.exclude([batch]):
            alarm = ALONE
        elif len(since) == _IN_A_RUN and limits.exclude(since):
            alarm = RUN
        if alarm:
            since = []
        yield alarm


class _Limits:
    """The limits of one figure, on its scale."""

    def __init__(self, figure: Figure, known: Mapping[str, Any], tests: int) -> None:
        self._figure = figure
        self.centre = float(to_scale(figure.scale, known["centre"]))
        # The centre is a mean over slides whose own variances are near that of one slide of as many cells.
        self._slides = int(known["slides"])
        self._spread = float(known["spread"])
        self._students = -float(stdtrit(self._slides - 1, FALSE_ALARMS / tests / 2))

    def around(self, batches: Sequence[_Batch]) -> tuple[float, float]:
        """Lower and upper limit of the mean of some batches."""
        error = np.sqrt(_combined(batches)[1] + max(self._spread, _LEAST_SPREAD) ** 2 / self._slides)
        low, high = ratio_limits(self._figure.scale, self.centre, self._figure.ratio)
        low, high = min(low, self.centre - self._students * error), max(high, self.centre + self._students * error)
        return -np.inf if self._figure.only_more else low, high

    def exclude(self, batches: Sequence[_Batch]) -> bool:
        """Say whether the mean of some batches lies outside its limits."""
        low, high = self.around(batches)
        return not low <= _combined(batches)[0] <= high


def _pooled(batch: pd.DataFrame, figure: Figure, known: Mapping[str, Any]) -> _Batch:
    """Mean of a batch's slides on the scale, each by the inverse of its variance: between slides, and of its cells.

    What makes slides differ (density, focus, the day) a batch's slides have in common, or may: so more of them narrow
    only what their cells explain.
    """
    values = to_scale(figure.scale, batch["value"])
    common = max(known["spread"], _LEAST_SPREAD) ** 2
    own = known["one_cell"] ** 2 / np.maximum(batch["cells"].to_numpy(np.float64), 1)
    weights = 1 / (common + own)
    weights /= weights.sum()
    return _Batch(batch.index.to_numpy(), float(weights @ values), float(common + weights**2 @ own))


def _combined(batches: Sequence[_Batch]) -> tuple[float, float]:
    weights = np.array([1 / batch.variance for batch in batches])
    values = np.array([batch.value for batch in batches])
    return float(np.average(values, weights=weights)), float(1 / weights.sum())


def _by_date(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Batches in the order of their first sample."""
    batches = rows.groupby("batch_name", sort=True)
    return sorted((batch for _, batch in batches), key=lambda batch: str(batch["sample_date"].min()))


def _against_others(pool: pd.DataFrame) -> Iterator[_Verdict]:
    groups = [(str(name), _by_date(same)) for (name, _), same in pool.groupby(["figure", "role"], sort=False)]
    followed = [(name, batches) for name, batches in groups if name not in _STAINS and len(batches) >= _MIN_BATCHES]
    tests = sum(FIGURES[name].judged for name, _ in followed)
    for name, batches in followed:
        figure = FIGURES[name]
        means = [float(to_scale(figure.scale, batch["value"]).mean()) for batch in batches]
        difference, p_value = deviations(np.array(means), np.zeros(len(means), np.int64))
        for batch, mean, off, p in zip(batches, means, difference, p_value, strict=True):
            low, high = ratio_limits(figure.scale, mean - off, figure.ratio)
            inside = (figure.only_more or low <= mean) and mean <= high
            beyond = figure.judged and p < FALSE_ALARMS / tests and not inside
            own = _Batch(batch.index.to_numpy(), mean, np.nan)
            yield _Verdict(own, name, OTHERS, mean - off, np.nan, np.nan, ALONE if beyond else "")
