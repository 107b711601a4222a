"""Blanks, donors, spiked samples and stain controls: what each gave, and which of them failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtrc, betaincinv
from scipy.stats import hypergeom

from ctc_imaging.assay import MIN_RECOVERY, pool_recovery
from ctc_imaging.counting import poisson_limits
from ctc_imaging.panel import CutOff

CONTROL_COLUMNS = (
    *("sample_id", "sample_kind", "sample_date", "batch", "batch_name", "found", "out_of"),
    *("rate", "low", "high", "others_rate", "p_value", "verdict", "reason"),
)
# One-sided: the three standard deviations of a control chart (Levey and Jennings, Am J Clin Pathol 1950;20:1059-66).
FALSE_ALARMS = 0.00135
_EMPTY = ("blank", "donor")


def judge_controls(
    counts: pd.DataFrame, batches: pd.DataFrame, cutoff: CutOff | None, remarks: pd.DataFrame
) -> pd.DataFrame:
    """Judge every control of a run.

    A control that gives no result has failed. A blank or donor fails if the panel's cut-off would call it positive,
    or if it holds more CTCs than the others of its kind allow (exact test of Poisson rates, p < 0.00135). A spiked
    sample fails if less than half of its cells can have been found (upper 95 % limit), or of those of its batch's
    spiked samples together, or if fewer were than in the others (Fisher's exact test, p < 0.00135). A stain control
    fails if a stain of it stands out from the others.

    Parameters
    ----------
    counts : DataFrame
        Rows of counts.csv.
    batches : DataFrame
        As from `batch_table`.
    cutoff : CutOff or None
        Of the run's panel.
    remarks : DataFrame
        As from `stain_remarks`.

    Returns
    -------
    DataFrame
        `CONTROL_COLUMNS`, one row a control in order of date: `found` CTCs in `out_of` mL assessed, or of spiked
        cells in the assessed blood; `rate` is their ratio with its 95 % limits `low` and `high`. `verdict` is passed,
        failed or not judged, and `reason` says why.
    """
    first = batches.drop_duplicates("sample_id").set_index("sample_id")
    table = counts[counts["sample_kind"] != "patient"].copy()
    for name in ("batch", "batch_name"):
        table[name] = table["sample_id"].map(first[name]).fillna("")
    table["spiked_cells"] = table["sample_id"].map(first["spiked_cells"]).astype(float)
    table = _with_rates(table.sort_values(["sample_date", "sample_id"], kind="stable", ignore_index=True))
    table = _with_batch_recovery(_against_others(table))
    off = dict(remarks[remarks["figure"] == "strength"].groupby("sample_id")["text"].agg("; ".join))
    verdicts = [_verdict(row, cutoff, off.get(row["sample_id"], "")) for row in table.to_dict("records")]
    table["verdict"], table["reason"] = [v for v, _ in verdicts], [r for _, r in verdicts]
    return table[list(CONTROL_COLUMNS)]


def mark_failed_controls(counts: pd.DataFrame, batches: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Add to the `quality_reasons` of the patients' samples with a result which control of their batch failed.

    Parameters
    ----------
    counts : DataFrame
        Rows of counts.csv.
    batches : DataFrame
        As from `batch_table`. Without a batch of their own, controls mark nothing.
    controls : DataFrame
        As from `judge_controls`.
    """
    failed = controls[(controls["verdict"] == "failed") & (controls["batch"] != "")]
    named = failed.groupby("batch_name", sort=False)["sample_id"].agg(", ".join)
    texts = [f"{batch} has a failed control ({names})" for batch, names in named.items()]
    of_batch = batches["batch_name"].map(dict(zip(named.index, texts, strict=True)))
    pairs = batches.assign(text=of_batch).dropna(subset="text").drop_duplicates(["sample_id", "text"])
    added = pairs[pairs["sample_kind"] == "patient"].groupby("sample_id")["text"].agg("; ".join)
    reasons = counts["quality_reasons"].fillna("").astype(str)
    extra = counts["sample_id"].map(added).where(counts["assessable"].astype(bool)).fillna("")
    return counts.assign(quality_reasons=reasons + np.where((reasons != "") & (extra != ""), "; ", "") + extra)


def recovery_limits(found: int, spiked: int, assessed_share: float) -> tuple[float, float]:
    """Exact 95 % limits of the share of spiked cells that was found, of those in the assessed blood.

    Parameters
    ----------
    found, spiked : int
        Cells called CTC, and cells put in; more of the former can only be chance in what was put in, so the limits
        are then Poisson's, otherwise binomial (Clopper and Pearson, Biometrika 1934;26:404-13).
    assessed_share : float
        Share of the sample's blood that was assessed.

    Returns
    -------
    low, high : float
        A high limit above 1 is cut to 1 where no more cells were found than put in.

    Examples
    --------
    >>> [round(limit, 3) for limit in recovery_limits(17, 20, 1.0)]
    [0.621, 0.968]
    """
    if found > spiked:
        low, high = poisson_limits(found)
        return float(low) / (spiked * assessed_share), float(high) / (spiked * assessed_share)
    least = betaincinv(found, spiked - found + 1, 0.025) if found else 0.0
    most = betaincinv(found + 1, spiked - found, 0.975) if found < spiked else 1.0
    return min(1.0, float(least) / assessed_share), min(1.0, float(most) / assessed_share)


def _with_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Add what was found, out of how much, and its rate with limits; all missing where there is no result."""
    known = table["assessable"].astype(bool) & table["ctc"].notna()
    spiked = (table["sample_kind"] == "spiked") & (table["spiked_cells"] > 0)
    countable = known & (spiked | table["sample_kind"].isin(_EMPTY))
    found = table["ctc"].astype(float).where(countable)
    volume_ml = table["assessed_volume_ml"].astype(float)
    share = volume_ml / table["blood_volume_ml"].astype(float)
    out_of = volume_ml.where(~spiked, table["spiked_cells"] * share).where(countable)
    low, high = poisson_limits(found)
    table = table.assign(found=found, out_of=out_of, share=share, rate=found / out_of)
    table["low"], table["high"] = low / out_of, high / out_of
    if (of_cells := spiked & countable).any():
        columns = [table.loc[of_cells, name].astype(float) for name in ("found", "spiked_cells", "share")]
        exact = [recovery_limits(int(f), int(cells), part) for f, cells, part in zip(*columns, strict=True)]
        table.loc[of_cells, ["low", "high"]] = exact
    return table


def _against_others(table: pd.DataFrame) -> pd.DataFrame:
    """Add the pooled rate of the others of the kind, and the chance of a result as far off the wrong way."""
    by_kind = table.groupby("sample_kind")[["found", "out_of"]].transform("sum")
    columns = [table["found"], table["out_of"], by_kind["found"] - table["found"], by_kind["out_of"] - table["out_of"]]
    others_of = columns[3].where(columns[3] > 0)
    rows = zip(table["sample_kind"], *(column.astype(float) for column in (*columns[:3], others_of)), strict=True)
    p_values = [
        np.nan if np.isnan([found, others]).any() else (_fewer if kind == "spiked" else _more)(found, of, more, others)
        for kind, found, of, more, others in rows
    ]
    return table.assign(others_rate=columns[2] / others_of, p_value=np.array(p_values, dtype=float))


def _with_batch_recovery(table: pd.DataFrame) -> pd.DataFrame:
    """Add the recovery of each spiked sample's batch, pooled, with its upper limit; missing for other controls."""
    table = table.assign(batch_rate=np.nan, batch_high=np.nan)
    counted = table[(table["sample_kind"] == "spiked") & table["rate"].notna()]
    for _, tubes in counted.groupby("batch_name"):
        numbers = (tubes[name].astype(float) for name in ("found", "spiked_cells", "share"))
        if pooled := pool_recovery(*numbers):
            table.loc[tubes.index, ["batch_rate", "batch_high"]] = pooled.share, pooled.high
    return table


def _more(found: float, volume_ml: float, others_found: float, others_ml: float) -> float:
    """Chance of at least `found`, given the sum, which is binomial with the share of the volume."""
    share = volume_ml / (volume_ml + others_ml)
    return float(bdtrc(found - 1, int(found + others_found), share)) if found else 1.0


def _fewer(found: float, cells: float, others_found: float, others_cells: float) -> float:
    """Chance of at most `found` of `cells`, given how many were found of all: Fisher's exact test, one-sided."""
    own, others = max(round(cells), int(found)), max(round(others_cells), int(others_found))
    return float(hypergeom.cdf(found, own + others, found + others_found, own))


def _verdict(row: dict[Any, Any], cutoff: CutOff | None, off: str) -> tuple[str, str]:
    if not row["assessable"]:
        return "failed", f"no result: {row['quality_reasons'] or 'no reason given'}"
    if row["sample_kind"] == "stain_control":
        return ("failed", off) if off else ("passed", "")
    if row["sample_kind"] == "spiked":
        return _judge_spiked(row)
    return _judge_empty(row, cutoff)


def _judge_spiked(row: dict[Any, Any]) -> tuple[str, str]:
    if np.isnan(row["rate"]):
        return "not judged", "the cohort table doesn't say how many cells were spiked"
    if row["high"] < MIN_RECOVERY:
        return "failed", f"{row['rate']:.0%} recovered, at most {row['high']:.0%}: more cells are lost than found"
    if row["batch_high"] < MIN_RECOVERY:
        said = f"{row['batch_rate']:.0%} recovered over its batch's spiked samples, at most {row['batch_high']:.0%}"
        return "failed", f"{said}: more cells are lost than found"
    if row["p_value"] < FALSE_ALARMS:
        return "failed", f"{row['rate']:.0%} recovered, {row['others_rate']:.0%} in the other spiked samples"
    return "passed", ""


def _judge_empty(row: dict[Any, Any], cutoff: CutOff | None) -> tuple[str, str]:
    fits = cutoff is not None and np.isclose(row["blood_volume_ml"], cutoff.volume_ml)
    found = f"{row['found']:.0f} CTC{'' if row['found'] == 1 else 's'} in {row['out_of']:.3g} mL"
    if cutoff is not None and fits and row["found"] >= cutoff.ctc:
        return "failed", f"{found}: a patient with as many would be called positive"
    if row["p_value"] < FALSE_ALARMS:
        return "failed", f"{found}, {row['others_rate']:.2g} per mL in the other {row['sample_kind']}s"
    if not fits and np.isnan(row["p_value"]):
        return "not judged", f"no other {row['sample_kind']} to compare with, and no cut-off for its blood volume"
    return "passed", ""
