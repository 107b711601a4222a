"""Which clone of the primary the CTCs and the relapse come from, and whether two samples share more than its trunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.clone_draws import CloneDraws, draw_clones
from ctc_imaging.clonality.clone_mixture import fit_mixture, sample_partitions
from ctc_imaging.clonality.sample_evidence import PatientEvidence, gather_evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

UNRELATED, COMMON_ORIGIN, SHARED_SUBCLONE, CANNOT_TELL = "unrelated", "common_origin", "shared_subclone", "cannot_tell"
WORDS = {
    UNRELATED: "no clone in common",
    COMMON_ORIGIN: "common origin; seeding not shown",
    SHARED_SUBCLONE: "a subclone shared beyond the primary's trunk",
    CANNOT_TELL: "cannot be told",
}
"""What a reader is told for each verdict."""

SURE = 0.9
"""Posterior support from which a verdict is given; below it is `cannot_tell`."""

DEFAULT_ERRORS = CellErrors(false_discovery=0.001, drop_out=0.2)
"""Of single cells whose own rates aren't known."""

_DRAWS, _PARTITIONS, _MANY_MUTATIONS, _MOST_CLONES = 4_000, 20, 400, 12
_LEAST_PRIOR = 0.02


@dataclass(frozen=True)
class Origin:
    """A patient's clones, their tree, and what each pair of samples shares.

    Attributes
    ----------
    pairs : DataFrame
        A row a pair: `sample_a`, `sample_b`, `verdict`, `support` (of the likeliest answer), `p_unrelated`,
        `p_common_origin`, `p_shared_subclone`. The three are held equally likely before the two samples' data.
    clones : DataFrame
        A row a clone of the best tree: `clone`, `parent` (missing under the root), `mutations` (a tuple of names),
        `trunk` (chance that every cell of the primary has it), `support` (posterior chance of this parent, the clones
        given), `placed` (false for a clone that fits nowhere on the tree, or is too small for it).
    samples : DataFrame
        A row a sample and clone: `sample_id`, `clone`, `present` (chance), `fraction` (of the cancer cells, posterior
        mean; of a single cell the chance), `leaves_from` (chance that it is the last clone of the primary the sample
        has: where it left the primary).
    tree_support : float
        Posterior weight of the best tree among all over these clones.
    notes : tuple of str
        What limits the answer, in words.
    """

    pairs: pd.DataFrame
    clones: pd.DataFrame
    samples: pd.DataFrame
    tree_support: float
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON and pictures; a missing parent is None."""
        return {
            "pairs": _records(self.pairs),
            "clones": _records(self.clones),
            "samples": _records(self.samples),
            "tree_support": self.tree_support,
            "notes": list(self.notes),
        }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(name): None if value is pd.NA else list(value) if isinstance(value, tuple) else value
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def origin_of(
    primary: pd.DataFrame,
    ctcs: pd.DataFrame,
    relapse: pd.DataFrame | None = None,
    *,
    cells: Mapping[str, int] | None = None,
    errors: CellErrors | Mapping[str, CellErrors] = DEFAULT_ERRORS,
    seed: int = 0,
) -> Origin:
    """Place a patient's CTCs and relapse on the tree of the primary's clones.

    Mutations are grouped into clones by all samples at once, the grouping itself drawn from its posterior; for each
    grouping all trees that the fractions and the cells allow are weighed; verdicts are counted over draws from all
    of it. A mutation that every cancer cell of every primary sample has is trunk, so a CTC and a relapse that share
    only trunk have a common origin and no more, while a clone shared beyond the trunk is a shared subclone.

    Parameters
    ----------
    primary, ctcs, relapse : DataFrame
        A row a sample and mutation: `sample_id`, `mutation`, and `present` (true, false, missing) or `ref_count` and
        `alt_count` with `purity`, `major_cn`, `minor_cn`, `normal_cn` where known. Several samples each may stand in
        one table; `relapse` may hold metastases too. Reads of a bulk sample without purity tell presence only.
    cells : mapping of str to int, optional
        Cells in each sample of `ctcs`, default 1; more than 1 is a pool or a cluster.
    errors : CellErrors or mapping of str to CellErrors
        Of one cell, for all CTC samples or by `sample_id`.
    seed : int
        The same seed gives the same answer.

    Returns
    -------
    Origin

    Raises
    ------
    StatisticsError
        There are no mutations, a mutation stands twice in a sample, or a number has no meaning.
    """
    evidence = gather_evidence(primary, ctcs, relapse, cells=cells or {}, errors=errors, default=DEFAULT_ERRORS)
    n = len(evidence.mutations)
    best = fit_mixture(evidence.evidence, clones=_MOST_CLONES, restarts=5, seed=seed)
    count = _PARTITIONS if n <= _MANY_MUTATIONS else _PARTITIONS // 5
    drawn = sample_partitions(evidence.evidence, best, draws=count, seed=seed)
    rng = np.random.default_rng(seed)
    over_groupings = [draw_clones(evidence, labels, _DRAWS // count, rng) for labels in drawn]
    shown = draw_clones(evidence, best, _DRAWS, rng)
    return Origin(
        _pairs(evidence, over_groupings),
        _clones(evidence, best, shown),
        _samples(evidence, shown),
        float(shown.trees.weights[0]),
        _notes(evidence, int(np.isin(best, shown.trees.misfits).sum())),
    )


def _pairs(evidence: PatientEvidence, draws: list[CloneDraws]) -> pd.DataFrame:
    rows = []
    ids = evidence.sample_ids
    for a in range(len(ids)):
        for b in range(a + 1, len(ids)):
            chances = _balanced(np.mean([d.verdicts(a, b) for d in draws], axis=0), _before(draws, a, b))
            rows.append((ids[a], ids[b], *_verdict(chances, evidence.has_primary), *chances))
    columns = ["sample_a", "sample_b", "verdict", "support", "p_unrelated", "p_common_origin", "p_shared_subclone"]
    return pd.DataFrame(rows, columns=columns)


def _before(draws: list[CloneDraws], a: int, b: int) -> np.ndarray:
    return np.mean([d.verdicts_before(a, b) for d in draws], axis=0)


def _balanced(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Take out how many trees and clones lead to each answer, so that no data at all leaves the three equal."""
    odds = after / np.maximum(before, _LEAST_PRIOR)
    return odds / odds.sum()


def _verdict(chances: np.ndarray, has_primary: bool) -> tuple[str, float]:
    names = (UNRELATED, COMMON_ORIGIN, SHARED_SUBCLONE)
    top = int(chances.argmax())
    # Without the primary nobody knows what of the shared is its trunk.
    told = chances[top] >= SURE and (has_primary or top == 0)
    return (names[top] if told else CANNOT_TELL), float(chances[top])


def _clones(evidence: PatientEvidence, labels: np.ndarray, shown: CloneDraws) -> pd.DataFrame:
    rows = [
        (
            k,
            shown.best_parent(k),
            tuple(evidence.mutations[labels == k]),
            shown.trunk_chance(k),
            shown.parent_support(k),
            shown.placed(k),
        )
        for k in range(shown.clones)
    ]
    table = pd.DataFrame(rows, columns=["clone", "parent", "mutations", "trunk", "support", "placed"])
    return table.astype({"parent": "Int64"})


def _samples(evidence: PatientEvidence, shown: CloneDraws) -> pd.DataFrame:
    rows = [
        (sample, k, shown.present_chance(s, k), shown.mean_fraction(s, k), shown.leaves_chance(s, k))
        for s, sample in enumerate(evidence.sample_ids)
        for k in range(shown.clones)
    ]
    return pd.DataFrame(rows, columns=["sample_id", "clone", "present", "fraction", "leaves_from"])


def _notes(evidence: PatientEvidence, misfits: int) -> tuple[str, ...]:
    notes = []
    if not evidence.has_primary:
        notes.append("There is no sample of the primary, so its trunk isn't known and seeding can't be told.")
    if evidence.presence_only:
        names = ", ".join(evidence.presence_only)
        notes.append(
            f"Without reads and purity only presence is known of {names}: fractions there are little more than "
            "what the tree asks for."
        )
    if evidence.primary_samples == 1:
        notes.append("One sample of the primary: what all its cancer cells have there may be missing elsewhere in it.")
    if misfits:
        notes.append(f"Mutations that fit nowhere on the tree: {misfits}. They prove nothing either way.")
    return tuple(notes)
