"""What is said of CTCs and relapse: a sentence a patient, a row a visit; no more than the verdicts carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ctc_imaging.report.words import MISSING, number, plural

_SHARED = "shared_subclone"
_RELATED = (_SHARED, "common_origin")


@dataclass(frozen=True)
class Imaging:
    """The day since surgery on which the relapse was known, and by what."""

    day: float | None
    by: str


def visits(patient: dict[str, Any], imaging: Imaging, words: dict[str, str]) -> list[dict[str, str]]:
    """Lay out a row a visit (day) with sequenced CTCs: what of the relapse they carried.

    Parameters
    ----------
    patient : dict
        As in clonality.json.
    imaging : Imaging
    words : dict of str to str
        Of the verdicts.

    Returns
    -------
    list of dict of str to str
        `day`, `before`, `samples`, `carried`, `beyond`, `verdict`, in the order of the days.
    """
    table = _carried(patient)
    if table.empty:
        return []
    groups = table.groupby("day", dropna=False, sort=True)
    return [_visit(float(rows["day"].iloc[0]), rows, imaging, words) for _, rows in groups]


def _carried(patient: dict[str, Any]) -> pd.DataFrame:
    days = {sample["sample_id"]: sample["day"] for sample in patient["samples"]}
    table = pd.DataFrame(patient["ctcs"])
    return table if table.empty else table.assign(day=table["sample_id"].map(days).astype(float))


def _visit(day: float, rows: pd.DataFrame, imaging: Imaging, words: dict[str, str]) -> dict[str, str]:
    best = rows.sort_values(["carried_beyond_trunk", "carried"], ascending=False, na_position="last").iloc[0]
    known = not pd.isna(day)
    counts = rows["verdict"].value_counts()
    return {
        "day": f"{day:.0f}".replace("-", "−") if known else MISSING,
        "before": lead(imaging.day - day) if known and imaging.day is not None else MISSING,
        "samples": str(rows["sample_id"].nunique()),
        "carried": f"{best['carried']} of {best['relapse_mutations']}",
        "beyond": MISSING
        if pd.isna(best["carried_beyond_trunk"])
        else f"{best['carried_beyond_trunk']:.0f} of {best['beyond_trunk']:.0f}",
        "verdict": "; ".join(f"{words[name]} ({counts[name]})" for name in words if name in counts),
    }


def lead(days: float) -> str:
    """Say how long before imaging, in the unit a clinic uses.

    Examples
    --------
    >>> lead(300), lead(9), lead(-4)
    ('9.9 months', '9 days', 'after it')
    """
    if days < 0:
        return "after it"
    return plural(int(days), "day") if days < 61 else f"{number(days / 30.4375)} months"


def sentence(patient: dict[str, Any], imaging: Imaging) -> str:
    """Say in a sentence what the CTCs had of the relapse, and how early."""
    table = _carried(patient)
    if table.empty:
        kinds = {sample["kind"] for sample in patient["samples"]}
        lacking = "no relapse" if not kinds & {"relapse", "metastasis"} else "no CTC"
        return f"There is {lacking} among the sequenced samples, so nothing is told of CTCs and relapse."
    shared, related = table[table["verdict"] == _SHARED], table[table["verdict"].isin(_RELATED)]
    total = table["sample_id"].nunique()
    if len(shared):
        what = "shared a subclone with the relapse beyond the primary's trunk"
        return f"{_of(shared, total)} {what}{_first(shared, imaging)}."
    if len(related):
        return (
            f"{_of(related, total)} had a common origin with the relapse{_first(related, imaging)}; "
            "that it was seeded by them isn't shown."
        )
    apart = table[table["verdict"] == "unrelated"]
    if len(apart) == len(table):
        return "No clone in common between the CTCs and the relapse, which may be a new primary."
    if len(apart):
        return f"{_of(apart, total)} had no clone in common with the relapse; of the others it cannot be told."
    return "Whether the CTCs and the relapse have a clone in common cannot be told."


def _of(rows: pd.DataFrame, total: int) -> str:
    return f"{rows['sample_id'].nunique()} of {plural(total, 'CTC sample')}"


def _first(rows: pd.DataFrame, imaging: Imaging) -> str:
    if not rows["day"].notna().any():
        return ""
    first = float(rows["day"].min())
    day = f", the first on day {first:.0f}".replace("-", "−")
    if imaging.day is None or imaging.day < first:
        return day
    what = "imaging showed the relapse" if imaging.by != "relapse sampled" else "the relapse was sampled"
    return f"{day}, {lead(imaging.day - first)} before {what}"
