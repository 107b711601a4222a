"""The blinded readings of a run → how well its readers agree, and what the model may have missed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from ctc_imaging.agreement import Agreement, agreement_of
from ctc_imaging.cohort import load_cohort
from ctc_imaging.errors import RunError
from ctc_imaging.readings import ReadingSet, count_rejected, reading_set
from ctc_imaging.store.history import histories
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.record import CALL
from ctc_imaging.store.reviews import current_reviews

if TYPE_CHECKING:
    from ctc_imaging.store.run_folder import RunFolder

_ROUND = re.compile(r", round (\d+)$")


def blinded_calls(run: RunFolder, chosen: ReadingSet) -> pd.DataFrame:
    """Gather what readers said of a set's cells, each reader's last word in each round.

    Parameters
    ----------
    run : RunFolder
    chosen : ReadingSet

    Returns
    -------
    DataFrame
        As `agreement.agreement_of` takes it: `sample_id`, `slide_id`, `cell_id`, `reader`, `round`, `call`,
        `inclusion_probability`.
    """
    samples = {entry.slide_id: entry.sample_id for entry in load_cohort(run.table("cohort"))}
    with Ledger(run.ledger) as ledger:
        reviews = current_reviews(run, ledger)
    rows = []
    for slide_id, said in reviews.items():
        for (reader, reading), history in histories(said).items():
            number = _round_of(reading, chosen.name)
            if number is not None:
                last = {row.cell_id: row.call for row in history.standing if row.action == CALL}
                known = {"sample_id": samples[slide_id], "slide_id": slide_id, "reader": reader, "round": number}
                rows += [{**known, "cell_id": cell_id, "call": call} for cell_id, call in last.items()]
    columns = ["sample_id", "slide_id", "cell_id", "reader", "round", "call"]
    table = pd.DataFrame(rows, columns=columns)
    return table.merge(chosen.cells.drop(columns="kind"), on=["slide_id", "cell_id"], how="inner")


def agreement_of_readers(run: RunFolder, name: str) -> dict[str, Any]:
    """Compare the readers of a set.

    Parameters
    ----------
    run : RunFolder
    name : str
        The set.

    Returns
    -------
    dict
        `set`, and all of `Agreement.as_dict`.

    Raises
    ------
    RunError
        If there is no such set, or nobody has read any of it.
    """
    run.read()
    chosen = reading_set(run, name)
    calls = blinded_calls(run, chosen)
    if calls.empty:
        raise RunError(
            run.path, f"nobody has read set {name}", f"ctc-imaging review {run.path} --reader NAME --blinded"
        )
    return {"set": name, **compared(run, chosen, calls).as_dict()}


def compared(run: RunFolder, chosen: ReadingSet, calls: pd.DataFrame) -> Agreement:
    """Compare the readers of a set, given what they said."""
    drawn = chosen.cells[chosen.cells["kind"] == "rejected"]
    least = float(drawn["inclusion_probability"].min()) if len(drawn) else None
    return agreement_of(calls, least, count_rejected(run) if len(drawn) else None)


def agreement_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say in lines for a person how well readers agree."""
    readers = facts["readers"]
    yield f"{len(readers)} readers of {facts['cells']} cells in {facts['samples']} samples: {', '.join(readers)}"
    for pair in facts["pairs"]:
        yield f"{pair['a']} and {pair['b']}: {pair['same']} of {pair['cells']} cells called alike"
        yield f"  Cohen's kappa {_words(pair['kappa'])}, agreement on CTCs {_words(pair['positive'])}"
        gap = pair["difference"]
        yield f"  CTCs a sample, {pair['a']} less {pair['b']}: mean {_number(gap['mean'])}{_spread(gap)}"
    if len(readers) > 2 and facts["fleiss"]:
        yield f"all together: Fleiss' kappa {_words(facts['fleiss'])}"
    for reader, rounds in facts["rounds"].items():
        for again in rounds:
            alike = f"{again['same']} of {again['cells']} cells called alike"
            yield f"{reader}, read again: {alike}, kappa {_words(again['kappa'])}"
    for reader, missed in facts["missed"].items():
        yield (
            f"CTCs among all that the model rejected, by {reader}: {missed['value']:.1f} "
            f"({missed['low']:.1f} to {missed['high']:.1f}); {missed['found']} found among {missed['read']} read"
        )


def _round_of(reading: str, name: str) -> int | None:
    """Which round of a set a reading is; None where it is a reading of something else."""
    found = _ROUND.search(reading)
    if (reading[: found.start()] if found else reading) != name:
        return None
    return int(found.group(1)) if found else 1


def _words(estimate: Mapping[str, Any]) -> str:
    value, low, high = (_number(estimate[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _spread(gap: Mapping[str, Any]) -> str:
    if gap["low"] is None:
        return ""
    return f", 95 % of samples between {_number(gap['low'])} and {_number(gap['high'])}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"
