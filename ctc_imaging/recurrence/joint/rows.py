"""The numbers a joint model's likelihood is made of: rows of measurements and of hazards, in order of subjects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True)
class MarkerRows:
    """Measurements of one marker: value, terms (n, p), random effects' functions (n, q), offset; by subject."""

    subject: NDArray[np.intp]
    y: NDArray[np.float64]
    terms: NDArray[np.float64]
    random: NDArray[np.float64]
    offset: NDArray[np.float64]

    @cached_property
    def outer(self) -> NDArray[np.float64]:
        """Products of the random effects' functions, (n, q * q)."""
        return (self.random[:, :, None] * self.random[:, None, :]).reshape(len(self.y), self.random.shape[1] ** 2)

    def part(self, low: int, high: int) -> MarkerRows:
        """Return the rows of subjects low to high, numbered from 0."""
        rows = slice(*np.searchsorted(self.subject, [low, high]))
        cut = (self.y[rows], self.terms[rows], self.random[rows], self.offset[rows])
        return MarkerRows(self.subject[rows] - low, *cut)


@dataclass(frozen=True)
class HazardRows:
    """Log hazards: a fixed part (n, m) and, for each association, marker and matrices (n, p) and (n, q).

    `stretch` numbers the integral that a row belongs to, where rows are points of integrals.
    """

    subject: NDArray[np.intp]
    fixed: NDArray[np.float64]
    associated: tuple[tuple[int, NDArray[np.float64], NDArray[np.float64]], ...]
    log_weight: NDArray[np.float64]
    stretch: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))

    def part(self, low: int, high: int) -> HazardRows:
        """Return the rows of subjects low to high, numbered from 0."""
        rows = slice(*np.searchsorted(self.subject, [low, high]))
        associated = tuple((marker, terms[rows], random[rows]) for marker, terms, random in self.associated)
        return HazardRows(self.subject[rows] - low, self.fixed[rows], associated, self.log_weight[rows])

    def where(self, chosen: NDArray[np.bool_]) -> HazardRows:
        """Return some of the rows."""
        associated = tuple((marker, terms[chosen], random[chosen]) for marker, terms, random in self.associated)
        stretch = self.stretch[chosen] if len(self.stretch) else self.stretch
        return HazardRows(self.subject[chosen], self.fixed[chosen], associated, self.log_weight[chosen], stretch)


@dataclass(frozen=True)
class Rows:
    """Everything about `count` subjects: measurements, points of the cumulative hazard, hazard at their events."""

    count: int
    markers: tuple[MarkerRows, ...]
    cumulative: HazardRows
    event: HazardRows

    def parts(self, size: int) -> Iterator[Rows]:
        """Cut into parts of at most so many subjects."""
        for low in range(0, self.count, size):
            high = min(low + size, self.count)
            markers = tuple(marker.part(low, high) for marker in self.markers)
            yield replace(
                self,
                count=high - low,
                markers=markers,
                cumulative=self.cumulative.part(low, high),
                event=self.event.part(low, high),
            )

    @cached_property
    def marker_sums(self) -> tuple[csr_array, ...]:
        """Matrices that add up rows of each marker by subject."""
        return tuple(sum_by(marker.subject, self.count) for marker in self.markers)

    @cached_property
    def cumulative_sum(self) -> csr_array:
        """Matrix that adds up points of the cumulative hazard by subject."""
        return sum_by(self.cumulative.subject, self.count)


def sum_by(group: NDArray[np.intp], count: int) -> csr_array:
    """Make the matrix (count, rows) that adds up rows by their group, given in rising order."""
    starts = np.searchsorted(group, np.arange(count + 1))
    return csr_array((np.ones(len(group)), np.arange(len(group)), starts), shape=(count, len(group)))
