"""Each patient's result in one line, beside what the controls say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ctc_imaging.assay.samples import BATCH, CONTROLS, MIN_BLANKS, MIN_TUBES, MODEL, SIMULATED
from ctc_imaging.report.sections import label_id, remark
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, limits, number, percent, plural, whole

_MODEL = {SIMULATED: "simulated slides", MODEL: "the model's own test slides"}


def result_rows(run: Run) -> list[dict[str, Any]]:
    """Rows of the table of results, by patient and date: the line, total limits per mL, limits of blank and so on.

    None where the run has no table of error rates, being of an older version or without a result.
    """
    if run.rates.empty:
        return []
    rates = {row["sample_id"]: row for _, row in run.rates.iterrows()}
    ordered = run.patients.sort_values(["patient_id", "sample_date", "sample_id"], kind="stable")
    return [_row(row, rates.get(row["sample_id"])) for _, row in ordered.iterrows()]


def _row(row: pd.Series, rates: pd.Series | None) -> dict[str, Any]:
    known = {
        "patient": label_id(row["patient_id"]),
        "date": label_id(row["sample_date"])[:10],
        "assessable": bool(row["assessable"]),
    }
    if not row["assessable"]:
        return {**known, "line": remark(row)}
    total = limits(row["ctc_per_ml_total_low"], row["ctc_per_ml_total_high"])
    return {
        **known,
        "line": statement(row, rates),
        "above": above_blank(row),
        "total": MISSING if total == MISSING else f"{number(row['ctc_per_ml'])} ({total})",
        "false": number(row["ctc_expected_false"]),
        "blank": whole(row["limit_of_blank"]),
        "detection": number(row["limit_of_detection"]),
    }


def above_blank(row: pd.Series) -> bool:
    """Tell whether a sample's count is above its limit of blank."""
    return not is_missing(row["limit_of_blank"]) and float(row["ctc"]) > float(row["limit_of_blank"])


def statement(row: pd.Series, rates: pd.Series | None) -> str:
    """Say a result in one line, as in ``3 CTCs, above the limit of blank, recovery 81 % (74–87), batch passed``.

    Parameters
    ----------
    row : Series
        A row of counts.csv with a result.
    rates : Series or None
        The sample's row of error_rates.csv; None where the run has none.
    """
    found = plural(int(row["ctc"]), "CTC")
    if rates is None:
        return f"{found}; its error rates are missing: ctc-imaging counts works them out"
    if not rates["blanks"] and not rates["spiked_tubes"]:
        confirmed = f", {_confirmed(row)}" if rates["all_reviewed"] else ""
        origin = _MODEL.get(str(rates["false_from"]), "")
        return f"{found}{confirmed}; no controls in this run: limits {f'from {origin}' if origin else 'of chance only'}"
    parts = [found, _beside_blank(row, rates), _recovery(rates), _verdict(rates)]
    return ", ".join(part for part in parts if part)


def _beside_blank(row: pd.Series, rates: pd.Series) -> str:
    if rates["all_reviewed"]:
        return _confirmed(row)
    if not row["ctc"] and not is_missing(row["limit_of_blank"]):
        return ""
    if not is_missing(row["limit_of_blank"]):
        return "above the limit of blank" if above_blank(row) else "not above the limit of blank"
    why = "too few leukocytes in the blanks" if rates["blanks"] else "no blank in this run"
    origin = _MODEL.get(str(rates["false_from"]))
    return f"limit of blank not known ({why})" + (f", false calls from {origin}" if origin else "")


def _confirmed(row: pd.Series) -> str:
    return "each confirmed by a reader" if int(row["ctc"]) > 1 else "confirmed by a reader"


def _recovery(rates: pd.Series) -> str:
    if rates["recovery_from"] not in CONTROLS:
        return "recovery not known"
    low, high = 100 * float(rates["recovery_low"]), percent(rates["recovery_high"]).removesuffix(" %")
    return f"recovery {percent(rates['recovery'])} ({low:.0f}–{high})"


def _verdict(rates: pd.Series) -> str:
    own = str(rates["batch_name"]).startswith("batch ")
    if is_missing(rates["batch_verdict"]):
        return "batch without controls" if own else ""
    if rates["batch_verdict"] == "not judged":
        return "controls of the batch not judged" if own else "controls not judged"
    return f"{'batch' if own else 'controls'} {rates['batch_verdict']}"


def basis(run: Run) -> list[str]:
    """Say in a sentence each what the limits of the run's samples rest on."""
    rates = run.rates
    sentences = [*_origins(rates, "false_from", _blanks), *_origins(rates, "recovery_from", _tubes)]
    if len(rates) and rates["all_reviewed"].astype(bool).any():
        sentences.append("Where a reader confirmed every CTC of a sample, none is taken for false.")
    return [sentence for sentence in sentences if sentence]


def _origins(rates: pd.DataFrame, column: str, words: Callable[[str, pd.Series], str]) -> list[str]:
    """One sentence for each place from which an error rate was taken, batches together."""
    first = rates.assign(origin=rates[column].fillna("")).drop_duplicates("origin").sort_values("origin")
    return [words(str(row["origin"]), row) for _, row in first.iterrows()]


def _blanks(origin: str, row: pd.Series) -> str:
    if origin == BATCH:
        return f"A batch with at least {MIN_BLANKS} blanks and donors has its limit of blank from its own."
    if origin in CONTROLS:
        false, blanks = plural(int(row["blank_ctc"]), "false CTC"), plural(int(row["blanks"]), "blank or donor")
        pool = blanks.replace("blank or donors", "blanks and donors")
        return (
            f"Limits of blank rest on {pool} of the whole run: {false} among {whole(row['blank_leukocytes'])} "
            "leukocytes. More such leukocytes lower them."
        )
    if origin in _MODEL:
        per_100k = number(row["false_per_100k"])
        return f"False calls are those of the model on {_MODEL[origin]}: {per_100k} among 100,000 leukocytes."
    return "Nothing tells how many calls are false, so there are no limits beyond those of chance."


def _tubes(origin: str, row: pd.Series) -> str:
    if origin == BATCH:
        return f"A batch with at least {MIN_TUBES} spiked samples has its recovery from its own."
    if origin in CONTROLS:
        return f"Recovery is that of {plural(int(row['spiked_tubes']), 'spiked sample')} of the whole run."
    if origin in _MODEL:
        return (
            "No spiked sample tells how many cells are lost before the scan, so recovery isn't known: limits take in "
            f"only what the model misses on {_MODEL[origin]}."
        )
    return ""
