"""The most likely mutation tree of sequenced single cells, under drop-out and false calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctc_imaging.clonality import tree_moves
from ctc_imaging.errors import StatisticsError

ABSENT, HETEROZYGOUS, HOMOZYGOUS, MISSING = range(4)
"""Codes of a cell's call at a mutated site."""

_STEPS_PER_MUTATION = 6_000
_FEWEST_STEPS = 200_000
_HOT, _COLD = 5.0, 0.05


@dataclass(frozen=True)
class CellErrors:
    """How often a single cell's genome is read wrongly.

    Parameters
    ----------
    false_discovery : float
        Chance that a site without the mutation is called heterozygous.
    drop_out : float
        Chance that a mutated site is called absent, its mutated allele lost. Where homozygous calls occur, the
        other allele is lost as often, and the site is called homozygous.
    false_homozygous : float, optional
        Chance that a site without the mutation is called homozygous; default `false_discovery` x `drop_out`, for
        it takes a false call and a loss.

    Raises
    ------
    StatisticsError
        A rate isn't between 0 and 1, or the rates leave a true call no chance.
    """

    false_discovery: float
    drop_out: float
    false_homozygous: float | None = None

    def __post_init__(self) -> None:
        rates = {"false_discovery": self.false_discovery, "drop_out": self.drop_out, "false_homozygous": self.false_hom}
        for name, rate in rates.items():
            if not 0 < rate < 1:
                raise StatisticsError(name, f"{rate} isn't a chance", "give a rate above 0 and below 1")

    @property
    def false_hom(self) -> float:
        """Chance of a false homozygous call, in its default too."""
        given = self.false_homozygous
        return self.false_discovery * self.drop_out if given is None else given


@dataclass(frozen=True)
class CellTree:
    """A mutation tree and where its cells hang.

    Attributes
    ----------
    parents : int64 ndarray, shape (n_mutations,)
        The mutation before each; `n_mutations` stands for the unmutated root.
    attachments : int64 ndarray, shape (n_cells,)
        The last mutation each cell has; `n_mutations` for a cell without any.
    log_score : float
        Sum over the cells of the log likelihood at their best place.
    """

    parents: np.ndarray
    attachments: np.ndarray
    log_score: float

    def genotypes(self) -> np.ndarray:
        """What each cell carries by the tree.

        Returns
        -------
        bool ndarray, shape (n_mutations, n_cells)
        """
        carried = np.zeros((len(self.parents) + 1, len(self.attachments)), bool)
        for cell, node in enumerate(self.attachments):
            while node < len(self.parents):
                carried[node, cell] = True
                node = self.parents[node]
        return carried[:-1]


def call_log_likelihoods(calls: np.ndarray, errors: CellErrors) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihood of every call without and with the mutation.

    Mutations are heterozygous (infinite sites). Without homozygous calls in the data a mutated site is called
    with chance 1 - drop_out; with them it loses either allele at `drop_out`, so 1 - 2 drop_out is left for the
    heterozygous call. A missing call tells nothing.

    Parameters
    ----------
    calls : int ndarray, shape (n_mutations, n_cells)
        0 absent, 1 heterozygous, 2 homozygous, 3 missing.
    errors : CellErrors

    Returns
    -------
    without, carrying : float64 ndarray, shape (n_mutations, n_cells)

    Raises
    ------
    StatisticsError
        The matrix is empty, has other codes, or the drop-out leaves heterozygous calls no chance.
    """
    calls = _checked(calls)
    false, lost = errors.false_discovery, errors.drop_out
    without, carrying = np.array([1 - false, false, 1.0, 1.0]), np.array([lost, 1 - lost, 1.0, 1.0])
    if (calls == HOMOZYGOUS).any():
        if lost >= 0.5:
            remedy = "give the drop-out of one allele, below 0.5"
            raise StatisticsError("drop_out", f"{lost} of either allele leaves no heterozygous call", remedy)
        without[[ABSENT, HOMOZYGOUS]] = 1 - false - errors.false_hom, errors.false_hom
        carrying[[HETEROZYGOUS, HOMOZYGOUS]] = 1 - 2 * lost, lost
    return np.log(without)[calls], np.log(carrying)[calls]


def search_cell_tree(
    calls: np.ndarray, errors: CellErrors, *, restarts: int = 8, steps: int | None = None, seed: int = 0
) -> CellTree:
    """Find the tree of highest likelihood (Jahn, Kuipers & Beerenwinkel, Genome Biology 2016;17:86).

    Every node is a mutation, every cell hangs where it is likeliest. Each restart anneals from a star by three
    moves (a branch hung elsewhere, two mutations exchanged, two branches exchanged) and then climbs through all
    trees one move away until none is better; the best restart is kept.

    Parameters
    ----------
    calls : int ndarray, shape (n_mutations, n_cells)
        0 absent, 1 heterozygous, 2 homozygous, 3 missing.
    errors : CellErrors
    restarts, steps : int
        Annealings, and trees tried in each (default 6,000 a mutation, at least 200,000).
    seed : int
        The same seed gives the same tree.

    Returns
    -------
    CellTree

    Raises
    ------
    StatisticsError
        As `call_log_likelihoods`.
    """
    without, carrying = call_log_likelihoods(calls, errors)
    gain = np.ascontiguousarray(carrying - without)
    steps = max(_FEWEST_STEPS, _STEPS_PER_MUTATION * len(gain)) if steps is None else steps
    best_score, best = -np.inf, np.empty(0, np.int64)
    for start in np.random.SeedSequence(seed).generate_state(restarts):
        score, parents = tree_moves.anneal(gain, steps, _HOT, _COLD, int(start))
        # Only by more than rounding, so that the earliest of equal trees is kept on every machine.
        if score > best_score + 1e-9:
            best_score, best = score, parents
    return _hang(best, gain, without)


def tree_log_score(calls: np.ndarray, parents: np.ndarray, errors: CellErrors) -> float:
    """Log likelihood of a given tree, each cell at its best place.

    Parameters
    ----------
    calls : int ndarray, shape (n_mutations, n_cells)
    parents : int ndarray, shape (n_mutations,)
        `n_mutations` for the root.
    errors : CellErrors
    """
    without, carrying = call_log_likelihoods(calls, errors)
    return _hang(np.asarray(parents, np.int64), np.ascontiguousarray(carrying - without), without).log_score


def _hang(parents: np.ndarray, gain: np.ndarray, without: np.ndarray) -> CellTree:
    at = tree_moves.gains_at_nodes(parents, gain)
    # The root comes first among equals: a cell whose calls say nothing is given no mutation.
    places = np.roll(at, 1, axis=0).argmax(axis=0)
    attachments = (places - 1) % len(at)
    return CellTree(parents, attachments, float(without.sum() + at.max(axis=0).sum()))


def _checked(calls: np.ndarray) -> np.ndarray:
    calls = np.asarray(calls)
    if calls.ndim != 2 or 0 in calls.shape:
        raise StatisticsError("calls", "there are no mutations or no cells", "give a row a mutation, a column a cell")
    if not np.isin(calls, range(4)).all():
        raise StatisticsError("calls", "codes other than 0, 1, 2 and 3", "write missing calls as 3")
    return calls.astype(np.int64)
