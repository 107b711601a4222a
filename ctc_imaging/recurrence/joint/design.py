"""From formulas and tables to the rows that a joint model's likelihood is made of."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.joint.families import FAMILIES
from ctc_imaging.recurrence.joint.hazard import Baseline, make_baseline
from ctc_imaging.recurrence.joint.rows import HazardRows, MarkerRows, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint.families import Family
    from ctc_imaging.recurrence.joint.spec import JointSpec, MarkerSpec

MODEL = "joint model"
_RANDOM = {"intercept": "1", "slope": "{t}", "spline": "bs({t}, df=3, extrapolation='extend')"}
_AREA_POINTS = 8


@dataclass(frozen=True)
class MarkerDesign:
    """The columns of one marker: formula's terms, random effects, exposure."""

    spec: MarkerSpec
    family: Family
    terms: Any
    outcome: Any
    random: Any
    time: str
    time_step: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the formula's terms."""
        return tuple(map(str, self.terms.column_names))

    @property
    def random_names(self) -> tuple[str, ...]:
        """Names of the random effects."""
        plain = {"Intercept": "intercept", self.time: "slope"}
        return tuple(plain.get(str(name), str(name)) for name in self.random.column_names)

    @property
    def needed(self) -> frozenset[str]:
        """Columns that the terms need, beside time."""
        return frozenset(map(str, self.terms.required_variables)) - {self.time}

    def matrices(self, frame: pd.DataFrame, times: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Evaluate terms (n, p) and random effects' functions (n, q) of rows at times."""
        rows = frame.assign(**{self.time: times})
        return _matrix(self.terms, rows), _matrix(self.random, rows)

    def associated(self, kind: str, frame: pd.DataFrame, times: NDArray[np.float64]) -> list[tuple[Any, Any]]:
        """Evaluate what the hazard depends on: matrices by the terms and by the random effects; several of `random`."""
        if kind == "value":
            return [self.matrices(frame, times)]
        if kind == "slope":
            after, before = (self.matrices(frame, times + sign * self.time_step) for sign in (1, -1))
            terms, random = ((one - two) / (2 * self.time_step) for one, two in zip(after, before, strict=True))
            return [(terms, random)]
        if kind == "area":
            return [self._area(frame, times)]
        effects = len(self.random_names)
        nothing = np.zeros((len(times), len(self.names)))
        return [(nothing, np.tile(np.eye(effects)[number], (len(times), 1))) for number in range(effects)]

    def _area(self, frame: pd.DataFrame, times: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        place, weight = np.polynomial.legendre.leggauss(_AREA_POINTS)
        parts = [self.matrices(frame, times * (unit + 1) / 2) for unit in place]
        halves = [sum(w / 2 * part[side] for w, part in zip(weight, parts, strict=True)) for side in (0, 1)]
        return halves[0] * times[:, None], halves[1] * times[:, None]


@dataclass(frozen=True)
class JointDesign:
    """What turns subjects into rows; made once from the training subjects, used for every subject later."""

    spec: JointSpec
    markers: tuple[MarkerDesign, ...]
    event_terms: Any
    baseline: Baseline
    time_unit: str

    @cached_property
    def event_names(self) -> tuple[str, ...]:
        """Names of the event formula's terms, without the intercept, which the baseline holds."""
        return tuple(name for name in map(str, self.event_terms.column_names) if name != "Intercept")

    @cached_property
    def association_names(self) -> tuple[tuple[int, str], ...]:
        """Marker and name of each association parameter."""
        names = []
        for number, marker in enumerate(self.markers):
            prefix = f"{marker.spec.name}:" if len(self.markers) > 1 else ""
            for kind in self.spec.association:
                kinds = [f"random({name})" for name in marker.random_names] if kind == "random" else [kind]
                names += [(number, prefix + one) for one in kinds]
        return tuple(names)

    def hazard(self, people: People, subject: NDArray[np.intp], times: NDArray[np.float64]) -> HazardRows:
        """Make rows of the log hazard at times of subjects."""
        covariates = people.events.iloc[subject]
        event = _matrix(self.event_terms, covariates)[
            :, [name != "Intercept" for name in self.event_terms.column_names]
        ]
        terms: list[tuple[int, NDArray[Any], NDArray[Any]]] = []
        for number, marker in enumerate(self.markers):
            frame = people.carried(marker.needed, subject, times)
            for kind in self.spec.association:
                terms += [(number, *pair) for pair in marker.associated(kind, frame, times)]
        fixed = np.column_stack([self.baseline.basis(times), event])
        return HazardRows(subject, fixed, tuple(terms), np.zeros(len(times)))

    def cumulative(
        self, people: People, subject: NDArray[np.intp], start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> HazardRows:
        """Make rows whose sum of hazards times weights is the cumulative hazard from start to stop."""
        stretch, times, weights = self.baseline.points(start, stop)
        rows = self.hazard(people, subject[stretch], times)
        return replace(rows, log_weight=np.log(weights), stretch=stretch)

    def visits(self, people: People) -> tuple[MarkerRows, ...]:
        """Make rows of the measurements."""
        return tuple(self._visits(marker, people) for marker in self.markers)

    def _visits(self, marker: MarkerDesign, people: People) -> MarkerRows:
        rows = people.known_rows(marker)
        frame = people.with_baseline(rows, marker.needed)
        times = rows[people.time].to_numpy(dtype=float)
        terms, random = marker.matrices(frame, times)
        outcome = _matrix(marker.outcome, rows)[:, 0]
        exposure = marker.spec.exposure
        offset = np.log(rows[exposure].to_numpy(dtype=float)) if exposure else np.zeros(len(rows))
        return MarkerRows(rows["_subject"].to_numpy(), outcome, terms, random, offset)

    def rows(self, people: People) -> Rows:
        """Make all rows of subjects whose follow-up is known."""
        everybody = np.arange(len(people.events))
        had = np.flatnonzero(people.event)
        return Rows(
            len(people.events),
            self.visits(people),
            self.cumulative(people, everybody, np.zeros(len(everybody)), people.end),
            self.hazard(people, had, people.end[had]),
        )


class People:
    """Subjects of a follow-up, numbered, with what a design needs of them.

    Parameters
    ----------
    follow_up : FollowUp
        Measurements from before time zero are left out.
    """

    def __init__(self, follow_up: FollowUp) -> None:
        self.time = follow_up.time
        self.events = follow_up.events.reset_index(drop=True)
        self.end = self.events[follow_up.event_time].to_numpy(dtype=float)
        self.event = self.events[follow_up.event].to_numpy(dtype=bool)
        place = pd.Series(np.arange(len(self.events)), index=follow_up.subjects)
        long = follow_up.long[follow_up.long[self.time] >= 0]
        self.long = long.assign(_subject=long[follow_up.id].map(place).astype(np.intp)).reset_index(drop=True)
        self._first = np.searchsorted(self.long["_subject"], np.arange(len(self.events)))
        self._visits = np.bincount(self.long["_subject"], minlength=len(self.events))
        self._reach = 1.0 + max(float(self.long[self.time].max() or 0) if len(self.long) else 0.0, self.end.max())
        self._key = self._keys(self.long["_subject"].to_numpy(), self.long[self.time].to_numpy(dtype=float))

    def _keys(self, subject: NDArray[np.intp], times: NDArray[np.float64]) -> NDArray[np.float64]:
        return subject * self._reach + np.minimum(times, self._reach * (1 - 1e-12))

    def known_rows(self, marker: MarkerDesign) -> pd.DataFrame:
        """Return the measurements of a marker of which everything needed is known."""
        needed = [*marker.outcome.required_variables, *marker.needed, *filter(None, [marker.spec.exposure])]
        return self.long.dropna(subset=[name for name in map(str, needed) if name in self.long])

    def with_baseline(self, rows: pd.DataFrame, needed: Iterable[str]) -> pd.DataFrame:
        """Add the columns that only the event table has."""
        more = [name for name in needed if name not in rows]
        return rows.assign(**{name: self.events[name].to_numpy()[rows["_subject"]] for name in more})

    def carried(self, needed: Iterable[str], subject: NDArray[np.intp], times: NDArray[np.float64]) -> pd.DataFrame:
        """Return covariates as last measured by these times; before the first measurement, as first measured."""
        last = np.searchsorted(self._key, self._keys(subject, times), side="right") - 1
        row = np.clip(last, self._first[subject], len(self.long) - 1)
        bare = self._visits[subject] == 0
        columns = {name: self._carried(name, subject, row, bare) for name in needed}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(subject)))

    def _carried(
        self, name: str, subject: NDArray[np.intp], row: NDArray[np.intp], bare: NDArray[np.bool_]
    ) -> NDArray[Any]:
        if name not in self.long or bare.all():
            return self.events[name].to_numpy()[subject]
        values = self.long[name].to_numpy()[row]
        return np.where(bare, self.events[name].to_numpy()[subject], values) if bare.any() else values


def make_design(spec: JointSpec, follow_up: FollowUp) -> tuple[JointDesign, FollowUp, list[str]]:
    """Read the formulas on training subjects, and leave out who lacks a value they need.

    Parameters
    ----------
    spec : JointSpec
    follow_up : FollowUp

    Returns
    -------
    design : JointDesign
    follow_up : FollowUp
        The subjects that can be used.
    notes : list of str
        Who was left out.

    Raises
    ------
    ConfigError
        If a formula can't be read, or names a column that isn't there.
    StatisticsError
        If the data can't carry the model.
    """
    formulas = [_parsed(marker.formula, "--long-formula", follow_up, True) for marker in spec.markers]
    event = _parsed(f"1 + {spec.event_formula}", "--event-formula", follow_up, False)
    usable, notes = _usable(spec, follow_up, formulas, event)
    people = People(usable)
    markers = tuple(_marker(marker, formula, people) for marker, formula in zip(spec.markers, formulas, strict=True))
    times = people.end[people.event]
    if len(times) == 0:
        raise StatisticsError(MODEL, "nobody had the event", "follow the subjects for longer")
    baseline = make_baseline(spec.baseline, times, float(people.end.max()), spec.knots, spec.time_points)
    terms = _model_spec(event, people.events, "--event-formula")
    design = JointDesign(spec, markers, terms, baseline, follow_up.time_unit)
    return design, usable, notes


def _parsed(text: str, option: str, follow_up: FollowUp, two_sided: bool) -> Any:
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        formula = Formula(text)
        needed = set(map(str, formula.required_variables))
    except FormulaicError as error:
        raise ConfigError(option, f"{text!r} can't be read ({error})", "write it like 'ctc ~ day + day:arm'") from error
    if two_sided != hasattr(formula, "lhs"):
        remedy = "write it like 'ctc ~ day'" if two_sided else "write terms only, like 'arm + age'"
        raise ConfigError(option, f"{text!r} has {'no' if two_sided else 'an'} outcome", remedy)
    known = {*follow_up.events.columns, *(follow_up.long.columns if two_sided else ())}
    if unknown := sorted(needed - set(map(str, known))):
        raise ConfigError(option, f"there is no column {unknown[0]}", f"use some of {', '.join(map(str, known))}"[:300])
    return formula


def _usable(spec: JointSpec, follow_up: FollowUp, formulas: Sequence[Any], event: Any) -> tuple[FollowUp, list[str]]:
    events, long, notes = follow_up.events, follow_up.long, []
    needed = set(map(str, event.required_variables))
    needed |= {name for formula in formulas for name in map(str, formula.rhs.required_variables) if name not in long}
    known = events.dropna(subset=sorted(needed))
    if left := len(events) - len(known):
        notes.append(f"{left} subject(s) with an unknown covariate are left out.")
    if (early := known[follow_up.event_time] <= 0).any():
        notes.append(f"{int(early.sum())} subject(s) whose follow-up ends at time 0 are left out.")
        known = known[~early]
    if left := int((long[follow_up.time] < 0).sum()):
        notes.append(f"{left} measurement(s) from before time 0 are left out.")
    long = long[long[follow_up.time] >= 0]
    columns = {
        name
        for marker, formula in zip(spec.markers, formulas, strict=True)
        for name in (*map(str, formula.required_variables), *filter(None, [marker.exposure]))
        if name in long
    }
    if left := int(long[sorted(columns)].isna().any(axis=1).sum()):
        notes.append(f"{left} measurement(s) with an unknown value are left out where it is needed.")
    measured = known[follow_up.id].isin(long[follow_up.id])
    if not measured.any():
        raise StatisticsError(MODEL, "nobody has a measurement to use", "check the tables' columns")
    # Who had the event before the first measurement belongs to the hazard all the same.
    usable = measured | _told_by_events(formulas, follow_up)
    if left := int((~usable).sum()):
        notes.append(f"{left} subject(s) without any measurement are left out: their covariates aren't known.")
    twice = long.duplicated([follow_up.id, follow_up.time]).sum()
    if twice:
        notes.append(f"{int(twice)} measurement(s) share subject and time with another; all are used.")
    if long.duplicated([follow_up.id, follow_up.time, *sorted(columns)]).sum() == len(long) / 2 > 0:
        raise StatisticsError(MODEL, "every measurement stands there twice", "give each row once")
    return follow_up.subset(known.loc[usable, follow_up.id]), notes


def _told_by_events(formulas: Sequence[Any], follow_up: FollowUp) -> bool:
    """Say whether all terms of the markers can be worked out from the event table and time."""
    needed = {str(name) for formula in formulas for name in formula.rhs.required_variables} - {follow_up.time}
    return needed <= set(map(str, follow_up.events.columns))


def _marker(spec: MarkerSpec, formula: Any, people: People) -> MarkerDesign:
    if spec.family not in FAMILIES:
        raise ConfigError("--family", f"{spec.family!r} isn't known", f"choose one of {', '.join(FAMILIES)}")
    if unknown := [name for name in spec.random_effects if name not in _RANDOM]:
        raise ConfigError("--random-effects", f"{unknown[0]!r} isn't known", f"choose of {', '.join(_RANDOM)}")
    if spec.exposure and spec.exposure not in people.long:
        raise ConfigError("--exposure", f"there is no column {spec.exposure}", "name a column of the long table")
    needed = {*map(str, formula.required_variables), *filter(None, [spec.exposure])}
    rows = people.long.dropna(subset=[name for name in needed if name in people.long])
    frame = people.with_baseline(rows, needed - {people.time})
    quoted = f"`{people.time}`"
    parts = [_RANDOM[name].format(t=quoted) for name in spec.random_effects]
    random = _parsed_plain(" + ".join(parts if "intercept" in spec.random_effects else ["-1", *parts]))
    outcome, terms = (_model_spec(side, frame, "--long-formula") for side in (formula.lhs, formula.rhs))
    step = 1e-4 * float(people.end.max())
    design = MarkerDesign(
        spec, FAMILIES[spec.family], terms, outcome, _model_spec(random, frame, "--random-effects"), people.time, step
    )
    _check_values(design, frame)
    return design


def _parsed_plain(text: str) -> Any:
    from formulaic import Formula

    return Formula(text)


def _check_values(marker: MarkerDesign, frame: pd.DataFrame) -> None:
    y = _matrix(marker.outcome, frame)
    if y.shape[1] != 1:
        raise ConfigError("--long-formula", "its outcome isn't one number", "write one column before the ~")
    if not np.isfinite(y).all():
        raise StatisticsError(MODEL, "the outcome isn't finite everywhere", "check it, for example for log of 0")
    if marker.family.counts and ((y < 0) | (y != np.rint(y))).any():
        raise StatisticsError(
            MODEL,
            f"the outcome isn't all counts, as family {marker.family.name} needs",
            "use family gaussian, or the counts themselves with --exposure",
        )
    if marker.spec.exposure and not (frame[marker.spec.exposure].to_numpy(dtype=float) > 0).all():
        raise StatisticsError(MODEL, f"{marker.spec.exposure} isn't above zero everywhere", "leave such rows out")
    if marker.family.counts and not y.any():
        raise StatisticsError(MODEL, "all counts are zero", "there is nothing to model")


def _model_spec(formula: Any, frame: pd.DataFrame, option: str) -> Any:
    from formulaic.errors import FormulaicError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            matrix = formula.get_model_matrix(frame, na_action="raise")
    except (FormulaicError, ValueError, TypeError, RuntimeWarning) as error:
        fault = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(option, f"it can't be worked out ({fault})", "check the columns' values") from error
    if matrix.shape[1] and np.linalg.matrix_rank(matrix.to_numpy(dtype=float)) < matrix.shape[1]:
        raise StatisticsError(MODEL, f"the terms of {option} tell each other's values", "leave one of them out")
    return matrix.model_spec


def _matrix(model_spec: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    return np.asarray(model_spec.get_model_matrix(frame, na_action="ignore").to_numpy(dtype=float))
