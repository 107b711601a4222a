"""From formulas and tables to the rows that a joint model's likelihood is made of."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.joint.families import FAMILIES
from ctc_imaging.recurrence.joint.hazard import KRONROD_POINTS, Baseline, make_baseline
from ctc_imaging.recurrence.joint.people import People, known_covariates
from ctc_imaging.recurrence.joint.rows import HazardRows, MarkerRows, Rows
from ctc_imaging.recurrence.joint.spec import ASSOCIATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint.families import Family
    from ctc_imaging.recurrence.joint.spec import JointSpec, MarkerSpec

MODEL = "joint model"
_RANDOM = {"intercept": "1", "slope": "{t}", "spline": "bs({t}, df=3, extrapolation='extend')"}
_AREA_POINTS = 8
# Shorter stretches of time have no logarithm once rounded.
_SHORTEST = 1e-300


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

    def associated(
        self, kind: str, carried: Callable[[NDArray[np.float64]], pd.DataFrame], times: NDArray[np.float64]
    ) -> list[tuple[Any, Any]]:
        """Evaluate what the hazard depends on: matrices by the terms and by the random effects; several of `random`.

        `carried` tells the covariates of the same rows at any times.
        """
        if kind == "value":
            return [self.matrices(carried(times), times)]
        if kind == "slope":
            # Half the way to time zero at most: terms such as sqrt(day) end there.
            frame, step = carried(times), np.minimum(self.time_step, times / 2)
            after, before = (self.matrices(frame, times + sign * step) for sign in (1, -1))
            terms, random = ((one - two) / (2 * step)[:, None] for one, two in zip(after, before, strict=True))
            return [(terms, random)]
        if kind == "area":
            return [self._area(carried, times)]
        effects = len(self.random_names)
        nothing = np.zeros((len(times), len(self.names)))
        return [(nothing, np.tile(np.eye(effects)[number], (len(times), 1))) for number in range(effects)]

    def _area(
        self, carried: Callable[[NDArray[np.float64]], pd.DataFrame], times: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        place, weight = np.polynomial.legendre.leggauss(_AREA_POINTS)
        parts = [self.matrices(carried(before), before) for before in (times * (unit + 1) / 2 for unit in place)]
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
        return tuple(map(str, self.event_terms.column_names))[1:]

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

    def covariates(self, people: People) -> NDArray[np.float64]:
        """Evaluate the event formula's terms, (n, m)."""
        return _matrix(self.event_terms, people.events)[:, 1:]

    def hazard(self, people: People, subject: NDArray[np.intp], times: NDArray[np.float64]) -> HazardRows:
        """Make rows of the log hazard at times of subjects."""
        event = self.covariates(people)[subject]
        terms: list[tuple[int, NDArray[Any], NDArray[Any]]] = []
        for number, marker in enumerate(self.markers):
            carried = partial(people.carried, marker.needed, subject)
            for kind in self.spec.association:
                terms += [(number, *pair) for pair in marker.associated(kind, carried, times)]
        fixed = np.column_stack([self.baseline.basis(times), event])
        return HazardRows(subject, fixed, tuple(terms), np.zeros(len(times)))

    def cumulative(
        self, people: People, subject: NDArray[np.intp], start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> HazardRows:
        """Make rows whose sum of hazards times weights is the cumulative hazard from start to stop."""
        needed = frozenset[str]().union(*(marker.needed for marker in self.markers))
        # Hazards jump where covariates change: no integral may run across.
        owner, low, high = people.cut(needed, subject, start, stop)
        piece, times, weights = self.baseline.points(low, high)
        stretch = owner[piece]
        rows = self.hazard(people, subject[stretch], times)
        return replace(rows, log_weight=np.log(np.maximum(weights, _SHORTEST)), stretch=stretch)

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
    _check_spec(spec)
    formulas = [_parsed(marker.formula, "--long-formula", follow_up, True) for marker in spec.markers]
    event = _parsed(f"1 + {spec.event_formula}", "--event-formula", follow_up, False)
    usable, notes = _usable(spec, follow_up, formulas, event)
    people = People(usable)
    markers = tuple(_marker(marker, formula, people) for marker, formula in zip(spec.markers, formulas, strict=True))
    times = people.end[people.event]
    if len(times) == 0:
        raise StatisticsError(MODEL, "nobody had the event", "follow the subjects for longer")
    time_points = spec.time_points if spec.time_points is not None else KRONROD_POINTS
    baseline = make_baseline(spec.baseline, times, float(people.end.max()), spec.knots, time_points)
    terms = _model_spec(event, people.events, "--event-formula")
    if "Intercept" not in terms.column_names:
        raise ConfigError("--event-formula", "it takes the intercept out", "leave out 0 or -1: the baseline holds it")
    design = JointDesign(spec, markers, terms, baseline, follow_up.time_unit)
    return design, usable, notes


def _check_spec(spec: JointSpec) -> None:
    if not spec.markers:
        raise ConfigError("--long-formula", "is missing", "write one like 'ctc ~ day'")
    names = [marker.name for marker in spec.markers]
    if len(set(names)) < len(names):
        raise ConfigError("--long-formula", "two have the same outcome", "write one formula a marker")
    if unknown := [name for name in spec.association if name not in ASSOCIATIONS]:
        raise ConfigError("--association", f"{unknown[0]!r} isn't known", f"choose of {', '.join(ASSOCIATIONS)}")
    if len(set(spec.association)) < len(spec.association):
        raise ConfigError("--association", "it names a thing twice", f"choose of {', '.join(ASSOCIATIONS)}")
    for marker in spec.markers:
        if marker.family not in FAMILIES:
            raise ConfigError("--family", f"{marker.family!r} isn't known", f"choose one of {', '.join(FAMILIES)}")
        if not marker.random_effects:
            raise ConfigError("--random-effects", "there are none", "give intercept at least")
        if unknown := [name for name in marker.random_effects if name not in _RANDOM]:
            raise ConfigError("--random-effects", f"{unknown[0]!r} isn't known", f"choose of {', '.join(_RANDOM)}")


def _parsed(text: str, option: str, follow_up: FollowUp, two_sided: bool) -> Any:
    from formulaic import Formula, SimpleFormula
    from formulaic.errors import FormulaicError

    remedy = "write it like 'ctc ~ day + day:arm'" if two_sided else "write terms only, like 'arm + age'"
    try:
        formula = Formula(text)
        needed = set(map(str, formula.required_variables))
    except FormulaicError as error:
        # formulaic underlines what it means by colours of the terminal.
        plain = re.sub(r"[⧛⧚]|\x1b?\[[0-9;]*m", "", str(error))
        raise ConfigError(option, f"{text!r} can't be read ({plain})", remedy) from error
    if two_sided != hasattr(formula, "lhs"):
        raise ConfigError(option, f"{text!r} has {'no' if two_sided else 'an'} outcome", remedy)
    if not isinstance(formula.rhs if two_sided else formula, SimpleFormula):
        raise ConfigError(option, f"{text!r} has several parts", remedy)
    known = {*follow_up.events.columns, *(follow_up.long.columns if two_sided else ())}
    if unknown := sorted(needed - set(map(str, known))):
        raise ConfigError(option, f"there is no column {unknown[0]}", f"use some of {', '.join(map(str, known))}"[:300])
    return formula


def _usable(spec: JointSpec, follow_up: FollowUp, formulas: Sequence[Any], event: Any) -> tuple[FollowUp, list[str]]:
    events, long, notes = follow_up.events, follow_up.long, []
    early = (events[follow_up.event_time] <= 0).to_numpy()
    if early.any():
        notes.append(f"{int(early.sum())} subject(s) whose follow-up ends at time 0 are left out.")
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
    # Who had the event before the first measurement belongs to the hazard all the same.
    needed = {str(name) for formula in formulas for name in formula.rhs.required_variables} - {follow_up.time}
    told = known_covariates(follow_up, {*needed, *map(str, event.required_variables)})
    if left := int((~told & ~early).sum()):
        notes.append(f"{left} subject(s) with an unknown covariate are left out.")
    usable = follow_up.subset(follow_up.subjects[told & ~early])
    for formula in formulas:
        if usable.long.dropna(subset=[name for name in map(str, formula.required_variables) if name in long]).empty:
            raise StatisticsError(MODEL, "nobody has a measurement to use", "check the tables' columns")
    twice = long.duplicated([follow_up.id, follow_up.time]).sum()
    if twice:
        notes.append(f"{int(twice)} measurement(s) share subject and time with another; all are used.")
    if long.duplicated([follow_up.id, follow_up.time, *sorted(columns)]).sum() == len(long) / 2 > 0:
        raise StatisticsError(MODEL, "every measurement stands there twice", "give each row once")
    return usable, notes


def _marker(spec: MarkerSpec, formula: Any, people: People) -> MarkerDesign:
    if spec.exposure:
        _check_exposure(spec.exposure, people)
    needed = {*map(str, formula.required_variables), *filter(None, [spec.exposure])}
    rows = people.long.dropna(subset=[name for name in needed if name in people.long])
    _check_visits(spec, rows["_subject"])
    frame = people.with_baseline(rows, needed - {people.time})
    quoted = f"`{people.time}`"
    parts = [_RANDOM[name].format(t=quoted) for name in spec.random_effects]
    random = _parsed_plain(" + ".join(parts if "intercept" in spec.random_effects else ["-1", *parts]))
    outcome = _model_spec(formula.lhs, frame, "--long-formula", outcome=True)
    terms = _model_spec(formula.rhs, frame, "--long-formula")
    step = 1e-4 * float(people.end.max())
    design = MarkerDesign(
        spec, FAMILIES[spec.family], terms, outcome, _model_spec(random, frame, "--random-effects"), people.time, step
    )
    _check_values(design, frame)
    return design


def _parsed_plain(text: str) -> Any:
    from formulaic import Formula

    return Formula(text)


def _check_visits(spec: MarkerSpec, subject: pd.Series) -> None:
    if subject.duplicated().any():
        return
    if len(spec.random_effects) > 1:
        raise StatisticsError(MODEL, "everybody was measured once only", "use --random-effects intercept")
    if not FAMILIES[spec.family].counts:
        fault = "everybody was measured once only, so subjects can't be told from noise"
        raise StatisticsError(MODEL, fault, "use a Cox model on the first value")


def _check_exposure(column: str, people: People) -> None:
    if column not in people.long:
        raise ConfigError("--exposure", f"there is no column {column}", "name a column of the longitudinal table")
    volumes = people.long[column].dropna()
    if not pd.api.types.is_numeric_dtype(volumes):
        raise ConfigError("--exposure", f"column {column} isn't all numbers", "name a column of volumes or times")
    if not ((volumes > 0) & np.isfinite(volumes)).all():
        raise StatisticsError(MODEL, f"{column} isn't above zero everywhere", "leave such rows out")


def _check_values(marker: MarkerDesign, frame: pd.DataFrame) -> None:
    y = _matrix(marker.outcome, frame)
    if y.shape[1] != 1:
        raise ConfigError("--long-formula", "its outcome isn't one number", "write one column before the ~")
    if marker.family.counts and ((y < 0) | (y != np.rint(y))).any():
        raise StatisticsError(
            MODEL,
            f"the outcome isn't all counts, as family {marker.family.name} needs",
            "use family gaussian, or the counts themselves with --exposure",
        )
    if marker.family.counts and not y.any():
        raise StatisticsError(MODEL, "all counts are zero", "there is nothing to model")
    if not marker.family.counts and np.ptp(y) == 0:
        raise StatisticsError(MODEL, "the outcome is the same everywhere", "there is nothing to model")


def _model_spec(formula: Any, frame: pd.DataFrame, option: str, outcome: bool = False) -> Any:
    values = _evaluated(formula, frame, option, na_action="raise")
    numbers = values.to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        raise StatisticsError(MODEL, f"{option} isn't finite everywhere", "check it, for example for log of 0")
    if not outcome and numbers.shape[1] and np.linalg.matrix_rank(numbers) < numbers.shape[1]:
        raise StatisticsError(MODEL, f"the terms of {option} tell each other's values", "leave one of them out")
    return values.model_spec


def _matrix(model_spec: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    values = _evaluated(model_spec, frame, "a formula", na_action="ignore")
    return np.asarray(values.to_numpy(dtype=float))


def _evaluated(formula: Any, frame: pd.DataFrame, option: str, na_action: str) -> Any:
    from formulaic.errors import FormulaicError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return formula.get_model_matrix(frame, na_action=na_action)
    except (FormulaicError, ValueError, TypeError, Warning) as error:
        fault = str(error).splitlines()[0] if str(error) else type(error).__name__
        bent = "extrapolation" in fault
        remedy = "write bs(day, df=3, extrapolation='extend')" if bent else "check the columns' values"
        raise ConfigError(option, f"it can't be worked out ({fault})", remedy) from error
