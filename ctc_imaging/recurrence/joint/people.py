"""Subjects of a follow-up, numbered, and their covariates as known at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint.design import MarkerDesign


class People:
    """Subjects of a follow-up, numbered, with what a design needs of them.

    A covariate of the longitudinal table is carried forward: at any time it is as last known; before it was first
    known, as first known; of who was never measured, as the event table has it.

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
        self._subject = self.long["_subject"].to_numpy()
        self._first = np.searchsorted(self._subject, np.arange(len(self.events)))
        self._visits = np.bincount(self._subject, minlength=len(self.events))
        self._latest = 1.0 + max(float(self.long[self.time].max()) if len(self.long) else 0.0, self.end.max())
        self._key = self._keys(self._subject, self.long[self.time].to_numpy(dtype=float))
        self._filled: dict[str, NDArray[Any]] = {}

    def _keys(self, subject: NDArray[np.intp], times: NDArray[np.float64]) -> NDArray[np.float64]:
        """One number that rises by subject, and by time within a subject; wide gaps leave rounding no room."""
        return np.asarray(subject * (2 * self._latest) + np.minimum(times, self._latest))

    def known_rows(self, marker: MarkerDesign) -> pd.DataFrame:
        """Return the measurements of a marker of which everything needed is known."""
        needed = [*marker.outcome.required_variables, *marker.needed, *filter(None, [marker.spec.exposure])]
        return self.long.dropna(subset=[name for name in map(str, needed) if name in self.long])

    def with_baseline(self, rows: pd.DataFrame, needed: Iterable[str]) -> pd.DataFrame:
        """Add the columns that only the event table has."""
        more = [name for name in needed if name not in rows]
        return rows.assign(**{name: self.events[name].to_numpy()[rows["_subject"]] for name in more})

    def carried(self, needed: Iterable[str], subject: NDArray[np.intp], times: NDArray[np.float64]) -> pd.DataFrame:
        """Return covariates as last known by these times."""
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
        values = self._without_gaps(name)[row]
        return np.where(bare, self.events[name].to_numpy()[subject], values) if bare.any() else values

    def _without_gaps(self, name: str) -> NDArray[Any]:
        if name not in self._filled:
            values = self.long[name]
            if values.isna().any():
                by_subject = values.groupby(self._subject, sort=False)
                forward = by_subject.ffill()
                values = forward.where(forward.notna(), by_subject.bfill())
            if values.isna().any() and name in self.events:
                values = values.where(values.notna(), self.events[name].to_numpy()[self._subject])
            self._filled[name] = values.to_numpy()
        return self._filled[name]

    def cut(
        self, needed: Iterable[str], subject: NDArray[np.intp], start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Cut stretches of subjects' time where one of the covariates changes.

        Parameters
        ----------
        needed : iterable of str
        subject : ndarray of int, shape (n,)
        start, stop : ndarray of float64, shape (n,)

        Returns
        -------
        owner : ndarray of int
            The stretch that each piece belongs to, in order.
        start, stop : ndarray of float64
            Of the pieces.
        """
        rows = self._changes(needed)
        times, keys = self.long[self.time].to_numpy(dtype=float)[rows], self._key[rows]
        first = np.searchsorted(keys, self._keys(subject, start), side="right")
        last = np.maximum(np.searchsorted(keys, self._keys(subject, stop), side="left"), first)
        pieces = last - first + 1
        owner = np.repeat(np.arange(len(subject)), pieces)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        edges, change = np.append(times, np.nan), first[owner] + number
        low = np.where(number == 0, start[owner], edges[change - 1])
        return owner, low, np.where(number == pieces[owner] - 1, stop[owner], edges[change])

    def _changes(self, needed: Iterable[str]) -> NDArray[np.intp]:
        """Rows whose covariates aren't those of the subject's row before."""
        changed = np.zeros(len(self.long), dtype=bool)
        for name in needed:
            if name in self.long:
                values = self._without_gaps(name)
                changed[1:] |= values[1:] != values[:-1]
        changed[1:] &= self._subject[1:] == self._subject[:-1]
        return np.flatnonzero(changed)


def known_covariates(follow_up: FollowUp, needed: Iterable[str]) -> NDArray[np.bool_]:
    """Say of which subjects every covariate is known, from the event table or at some measurement since time zero.

    Parameters
    ----------
    follow_up : FollowUp
    needed : iterable of str
        Columns of either table.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    events, long = follow_up.events, follow_up.long[follow_up.long[follow_up.time] >= 0]
    known = np.ones(len(events), dtype=bool)
    for name in needed:
        told = events[name].notna().to_numpy() if name in events else np.zeros(len(events), dtype=bool)
        if name in long:
            told = told | events[follow_up.id].isin(long.loc[long[name].notna(), follow_up.id]).to_numpy()
        known &= told
    return known
