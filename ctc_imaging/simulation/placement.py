"""Where the cells of a slide lie: clusters and crowds as groups that touch, everything else apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ctc_imaging.errors import ConfigError
from ctc_imaging.simulation.settings import Setting

MAX_COVERED = 0.33
"""Share of a slide that cells may cover; beyond it they can't be laid out without heavy overlap."""

_CLUSTER_SIZES = (2, 3, 4)
_CLUSTER_WEIGHTS = (0.55, 0.30, 0.15)
# Single cells may graze each other, but no chance contact may look like a cluster with a CTC.
_GRAZING = 0.92
_CTC_CLEARANCE_UM = 2.5
_MAX_ROUNDS = 2000


@dataclass
class Groups:
    """Rigid groups of touching cells: `group` of each cell, and its offset from the group's anchor in µm."""

    group: NDArray[np.intp]
    offset_um: NDArray[np.float64]
    cluster_id: NDArray[np.intp]

    @classmethod
    def singles(cls, count: int) -> Groups:
        """Every cell a group of its own, in no cluster (``cluster_id`` 0)."""
        return cls(np.arange(count), np.zeros((count, 2)), np.zeros(count, np.intp))

    def join(self, members: list[int], reach_um: NDArray[np.float64], rng: np.random.Generator) -> None:
        """Make one group of `members`, each touching an earlier one, `reach_um` being their radii."""
        placed = members[:1]
        for cell in members[1:]:
            self.offset_um[cell] = _dock(self.offset_um[placed], reach_um[placed], reach_um[cell], rng)
            placed.append(cell)
        self.group[members] = members[0]


def _dock(
    taken_um: NDArray[np.float64], reach_um: NDArray[np.float64], own_um: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Find a place for one more cell that touches one of those placed and overlaps none."""
    for _ in range(50):
        host = int(rng.integers(len(taken_um)))
        angle = rng.uniform(0, 2 * np.pi)
        spot = taken_um[host] + (reach_um[host] + own_um) * np.array([np.sin(angle), np.cos(angle)])
        if (np.hypot(*(taken_um - spot).T) >= 0.999 * (reach_um + own_um)).all():
            break
    return spot


def draw_groups(cells: pd.DataFrame, setting: Setting, rng: np.random.Generator) -> Groups:
    """Draw which cells touch: CTC clusters, CTC-leukocyte clusters, and crowds where the setting is dense.

    Parameters
    ----------
    cells : DataFrame
        See `ctc_imaging.simulation.population.draw_cells`.
    setting : Setting
    rng : numpy.random.Generator

    Returns
    -------
    Groups
        Groups that hold a CTC have a `cluster_id` from 1 on; all others 0.
    """
    groups = Groups.singles(len(cells))
    is_ctc = (cells["kind"] == "ctc").to_numpy()
    ctcs = [int(i) for i in rng.permutation(np.flatnonzero(is_ctc))]
    others = [int(i) for i in rng.permutation(np.flatnonzero((cells["kind"] == "leukocyte").to_numpy()))]
    outline_um = 0.47 * cells["diameter_um"].to_numpy()
    wanted = setting.ctc_clustered_fraction * len(ctcs) / float(np.dot(_CLUSTER_SIZES, _CLUSTER_WEIGHTS))
    for size in _cluster_sizes(wanted, rng):
        if size <= len(ctcs):
            groups.join([ctcs.pop() for _ in range(size)], outline_um, rng)
    for size in _cluster_sizes(setting.ctc_leukocyte_cluster_fraction * is_ctc.sum(), rng):
        if ctcs and len(others) >= size - 1:
            groups.join([ctcs.pop(), *(others.pop() for _ in range(size - 1))], outline_um, rng)
    _crowd(groups, [int(i) for i in rng.permutation(ctcs + others)], cells, setting, rng)
    _number_clusters(groups, is_ctc)
    return groups


def _cluster_sizes(expected: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sizes of clusters of which `expected` are wanted: the whole part, and by chance one more."""
    count = int(expected) + int(rng.random() < expected % 1)
    return rng.choice(_CLUSTER_SIZES, count, p=_CLUSTER_WEIGHTS)


def _crowd(groups: Groups, free: list[int], cells: pd.DataFrame, setting: Setting, rng: np.random.Generator) -> None:
    """Join free cells into groups whose nuclei touch, until the setting's share of nuclei does."""
    nucleus_um = 0.49 * (cells["diameter_um"] * cells["nucleus_ratio"]).to_numpy()
    wanted = round(setting.touching_nuclei_fraction * len(cells))
    while wanted >= 2 and len(free) >= 2:
        size = min(int(rng.integers(2, 6)), wanted, len(free))
        groups.join([free.pop() for _ in range(size)], nucleus_um, rng)
        wanted -= size


def _number_clusters(groups: Groups, is_ctc: NDArray[np.bool_]) -> None:
    members = np.bincount(groups.group, minlength=len(groups.group))
    has_ctc = np.bincount(groups.group, weights=is_ctc, minlength=len(groups.group)) > 0
    clusters = np.flatnonzero((members > 1) & has_ctc)
    number = np.zeros(len(groups.group), np.intp)
    number[clusters] = np.arange(1, len(clusters) + 1)
    groups.cluster_id[:] = number[groups.group]


def place(
    cells: pd.DataFrame, groups: Groups, size_um: tuple[float, float], where: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Lay the groups out at random, so that cells of different groups graze at most.

    Every group is thrown at random; of two that collide the later one is thrown again.

    Parameters
    ----------
    cells : DataFrame
        See `ctc_imaging.simulation.population.draw_cells`.
    groups : Groups
    size_um : tuple of float
        Height and width of the slide.
    where : str
        What to name in an error.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Centres (y, x) in µm.

    Raises
    ------
    ConfigError
        If the cells don't fit.
    """
    radius = cells["diameter_um"].to_numpy() / 2
    covered = float(np.pi * (radius**2).sum() / (size_um[0] * size_um[1]))
    if covered > MAX_COVERED:
        fault = f"{len(cells)} cells would cover {covered:.0%} of the slide"
        raise ConfigError(where, fault, f"take fewer cells or a larger shape (at most {MAX_COVERED:.0%} covered)")
    is_ctc = (cells["kind"] == "ctc").to_numpy()
    margins = _Margins(groups, size_um)
    centres = margins.throw(np.unique(groups.group), np.zeros((len(cells), 2)), rng)
    for _ in range(_MAX_ROUNDS):
        colliding = _colliding_groups(centres, radius, is_ctc, groups.group)
        if not len(colliding):
            return centres
        centres = margins.throw(colliding, centres, rng)
    raise ConfigError(where, f"no room found for {len(cells)} cells", "take fewer cells or a larger shape")


class _Margins:
    """Throws groups so that all their members' centres stay on the slide."""

    def __init__(self, groups: Groups, size_um: tuple[float, float]) -> None:
        self.groups = groups
        count = len(groups.group)
        self.low, self.high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        np.minimum.at(self.low, groups.group, groups.offset_um)
        np.maximum.at(self.high, groups.group, groups.offset_um)
        self.size_um = np.asarray(size_um)

    def throw(
        self, which: NDArray[np.intp], centres: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Give the groups `which` new random places."""
        anchors = np.full((len(self.groups.group), 2), np.nan)
        anchors[which] = rng.uniform(-self.low[which], np.maximum(self.size_um - self.high[which], -self.low[which]))
        moved = anchors[self.groups.group] + self.groups.offset_um
        return np.where(np.isnan(moved), centres, moved)


def _colliding_groups(
    centres: NDArray[np.float64], radius: NDArray[np.float64], is_ctc: NDArray[np.bool_], group: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The later group of every pair of groups that come too close."""
    reach = 2 * float(radius.max(initial=0)) + _CTC_CLEARANCE_UM
    pairs = cKDTree(centres).query_pairs(reach, output_type="ndarray")
    first, second = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]].T
    touching = radius[first] + radius[second]
    near_ctc = is_ctc[first] | is_ctc[second]
    allowed = np.where(near_ctc, touching + _CTC_CLEARANCE_UM, _GRAZING * touching)
    close = np.hypot(*(centres[first] - centres[second]).T) < allowed
    return np.unique(np.maximum(group[first], group[second])[close])
