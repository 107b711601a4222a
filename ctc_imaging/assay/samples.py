"""Each patient's sample beside the controls: its error rates, limits of blank and detection, total limits per mL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.assay.blank import limit_of_blank, limit_of_detection
from ctc_imaging.assay.error_rates import FalseCalls, Recovery
from ctc_imaging.assay.interval import total_limits
from ctc_imaging.assay.recovery import pool_recovery
from ctc_imaging.assay.spread import estimate_false_calls, estimate_recovery

RATES_CSV = "error_rates.csv"
LIMIT_COLUMNS = (
    *("ctc_per_ml_total_low", "ctc_per_ml_total_high", "ctc_expected_false"),
    *("limit_of_blank", "limit_of_detection"),
)
RATE_COLUMNS = (
    *("sample_id", "batch_name", "batch_verdict", "false_from", "blanks", "blank_leukocytes", "blank_ctc"),
    *("false_per_100k", "recovery_from", "spiked_tubes", "recovery", "recovery_low", "recovery_high", "all_reviewed"),
)
# With fewer in its own batch, a sample is judged by the controls of the whole run.
MIN_BLANKS, MIN_TUBES = 5, 3
# Where an error rate was measured: controls of the batch or of the run, or the model's test slides.
BATCH, RUN, SIMULATED, MODEL = "batch", "run", "simulated", "model"
CONTROLS = (BATCH, RUN)
_VERDICTS = ("failed", "passed", "not judged")


def assess_samples(
    counts: pd.DataFrame,
    batches: pd.DataFrame,
    controls: pd.DataFrame,
    unreviewed: pd.Series,
    model: Mapping[str, Any] | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fill the limits of the patients' samples from the run's controls or, without any, from the model's test slides.

    False calls are the machine's own on blanks and donors, all of them, failed or not: to leave out bad ones would
    better the limit of blank. Recovery is that of spiked tubes, less false calls at the blanks' rate; tubes that
    failed in other batches are left out. A batch's own controls are used where it has at least 5 blanks and donors, or
    3 spiked tubes; otherwise those of the whole run.

    Parameters
    ----------
    counts : DataFrame
        Rows of counts.csv.
    batches : DataFrame
        As from `batch_quality.batch_table`.
    controls : DataFrame
        As from `batch_quality.judge_controls`.
    unreviewed : Series
        CTCs that no reader looked at, by `sample_id`. Where all were looked at, false calls count as none.
    model : mapping or None
        As from `model_error_rates`.

    Returns
    -------
    counts : DataFrame
        With `LIMIT_COLUMNS` filled for patients' samples with a result; what isn't known stays missing. The limits of
        blank and detection are known from controls only.
    rates : DataFrame
        `RATE_COLUMNS`, a row for each of these samples: the error rates used, and where they are from.
    """
    table = _with_results(counts, batches, controls)
    patients = table[table["sample_kind"] == "patient"]
    patients = patients.assign(all_reviewed=(patients["ctc"] > 0) & (patients["sample_id"].map(unreviewed) == 0))
    filled = [_fill(samples, table, str(batch), model) for batch, samples in patients.groupby("batch_name", sort=False)]
    known = pd.concat(filled) if filled else patients.reindex(columns=[*RATE_COLUMNS, *LIMIT_COLUMNS])
    known["batch_verdict"] = known["sample_id"].map(batch_verdicts(batches, controls)).fillna("")
    limits = known[list(LIMIT_COLUMNS)].astype("float64").reindex(counts.index)
    return counts.assign(**limits), known.sort_index()[list(RATE_COLUMNS)].reset_index(drop=True)


def batch_verdicts(batches: pd.DataFrame, controls: pd.DataFrame) -> dict[str, str]:
    """Say of each sample's batch whether a control of it failed, they passed, or none was judged.

    Parameters
    ----------
    batches, controls : DataFrame
        As of `assess_samples`.

    Returns
    -------
    dict of str to str
        ``failed``, ``passed`` or ``not judged`` by `sample_id`, without samples whose batch has no control.
    """
    by_batch = dict(controls.groupby("batch_name")["verdict"].agg(set))
    found: dict[str, set[str]] = {}
    for sample, batch in zip(batches["sample_id"], batches["batch_name"], strict=True):
        found.setdefault(str(sample), set()).update(by_batch.get(batch, ()))
    return {sample: next(v for v in _VERDICTS if v in verdicts) for sample, verdicts in found.items() if verdicts}


def _with_results(counts: pd.DataFrame, batches: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Return the samples with a result, with their batch, verdict, spiked cells and the machine's own calls."""
    first = batches.drop_duplicates("sample_id").set_index("sample_id")
    table = counts[counts["assessable"].astype(bool) & counts["ctc"].notna()].copy()
    numbers = ["ctc", "ctc_machine", "leukocyte", "assessed_volume_ml", "blood_volume_ml"]
    table[numbers] = table[numbers].astype("float64")
    table["batch_name"] = table["sample_id"].map(first["batch_name"]).fillna("the run")
    table["spiked_cells"] = table["sample_id"].map(first["spiked_cells"]).astype("float64")
    table["verdict"] = table["sample_id"].map(dict(zip(controls["sample_id"], controls["verdict"], strict=True)))
    return table.assign(called=table["ctc_machine"].fillna(table["ctc"]))


def _fill(samples: pd.DataFrame, table: pd.DataFrame, batch: str, model: Mapping[str, Any] | None) -> pd.DataFrame:
    """Add `RATE_COLUMNS` and `LIMIT_COLUMNS` to a batch's samples."""
    false_calls, false_columns = _false_calls(table, batch, float(samples["leukocyte"].median()), model)
    seen = false_columns["blank_ctc"] / max(false_columns["blank_leukocytes"], 1)
    recovery, recovery_columns = _recovery(table, batch, seen, model)
    columns = {**false_columns, **recovery_columns, **dict.fromkeys(LIMIT_COLUMNS, np.nan)}
    filled = samples.assign(**columns)
    for reviewed, part in filled.groupby("all_reviewed"):
        rates = FalseCalls(0.0) if reviewed else false_calls, recovery
        for name, values in _limits(part, *rates).items():
            filled.loc[part.index, name] = values
    return filled


def _limits(samples: pd.DataFrame, false_calls: FalseCalls | None, recovery: Recovery | None) -> dict[str, Any]:
    if false_calls is None:
        return {}
    leukocytes = samples["leukocyte"].to_numpy()
    limits: dict[str, Any] = {"ctc_expected_false": false_calls.expected(leukocytes)}
    if recovery is not None:
        counted = samples["ctc"].to_numpy(), samples["assessed_volume_ml"].to_numpy(), leukocytes
        low, high = total_limits(*counted, false_calls, recovery)
        limits |= {"ctc_per_ml_total_low": low, "ctc_per_ml_total_high": high}
    if false_calls.source in CONTROLS:
        limits["limit_of_blank"] = limit_of_blank(leukocytes, false_calls)
        if recovery is not None:
            limits["limit_of_detection"] = limit_of_detection(
                limits["limit_of_blank"], leukocytes, false_calls, recovery
            )
    return limits


def _false_calls(
    table: pd.DataFrame, batch: str, leukocytes: float, model: Mapping[str, Any] | None
) -> tuple[FalseCalls | None, dict[str, Any]]:
    """Estimate the false calls of a batch's samples, which hold about so many leukocytes each."""
    blanks, source = _own_or_all(table[table["sample_kind"].isin(("blank", "donor"))], batch, MIN_BLANKS)
    in_all = float(blanks["leukocyte"].sum())
    columns = {"blanks": len(blanks), "blank_leukocytes": in_all, "blank_ctc": float(blanks["called"].sum())}
    # Controls with fewer leukocytes than one sample can't tell how many of its leukocytes are called falsely.
    rate = estimate_false_calls(blanks["called"], blanks["leukocyte"], source) if in_all >= leukocytes else None
    if rate is None and model is not None:
        measured = pd.DataFrame(model["sources"])
        rate = estimate_false_calls(measured["false_ctc"], measured["leukocytes"], _source_of(model))
    per_100k = np.nan if rate is None else 1e5 * rate.per_leukocyte
    return rate, columns | {"false_from": rate.source if rate else "", "false_per_100k": per_100k}


def _recovery(
    table: pd.DataFrame, batch: str, false_per_leukocyte: float, model: Mapping[str, Any] | None
) -> tuple[Recovery | None, dict[str, Any]]:
    """Estimate the recovery of a batch's samples; its limits are those of spiked tubes only."""
    spiked = table[(table["sample_kind"] == "spiked") & (table["spiked_cells"] > 0)]
    judged = spiked[(spiked["verdict"] != "failed") | (spiked["batch_name"] == batch)]
    tubes, source = _own_or_all(judged, batch, MIN_TUBES)
    found = tubes["called"] - false_per_leukocyte * tubes["leukocyte"]
    assessed = tubes["assessed_volume_ml"] / tubes["blood_volume_ml"]
    recovery = estimate_recovery(found, tubes["spiked_cells"] * assessed, source)
    pooled = pool_recovery(found, tubes["spiked_cells"], assessed)
    figures = (pooled.share, pooled.low, pooled.high) if pooled else (np.nan,) * 3
    if recovery is None and model is not None:
        measured = pd.DataFrame(model["sources"])
        recovery = estimate_recovery(measured["found"], measured["ctc"], _source_of(model))
    columns = dict(zip(("recovery", "recovery_low", "recovery_high"), figures, strict=True))
    return recovery, columns | {"spiked_tubes": len(tubes), "recovery_from": recovery.source if recovery else ""}


def _own_or_all(controls: pd.DataFrame, batch: str, enough: int) -> tuple[pd.DataFrame, str]:
    """Choose a batch's own controls where they are enough, and not all there are."""
    own = controls[controls["batch_name"] == batch]
    return (own, BATCH) if enough <= len(own) < len(controls) else (controls, RUN)


def _source_of(model: Mapping[str, Any]) -> str:
    return SIMULATED if model["simulated"] else MODEL
