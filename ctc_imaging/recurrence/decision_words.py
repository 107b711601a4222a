"""Schemes, effects of treatment and plans in plain words, and as values for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from ctc_imaging.recurrence.planning import Power, SampleSize
    from ctc_imaging.recurrence.scheme_evaluation import SchemeEvaluation
    from ctc_imaging.recurrence.treatment import TreatmentEffect
    from ctc_imaging.recurrence.trial_plan import Plan

_QUANTITY_WORDS = {
    "rfs_untreated": "free of the event without treatment",
    "rfs_treated": "free of the event with treatment",
    "rfs_difference": "difference",
    "restricted_mean_difference": "time free of the event gained up to then",
    "hazard_ratio": "hazard ratio, treated to untreated",
}
_SHARES = ("rfs_untreated", "rfs_treated", "rfs_difference")


def scheme_facts(found: SchemeEvaluation) -> dict[str, Any]:
    """Put an evaluation into plain values; None where there is no figure."""
    scheme = found.scheme
    return {
        "name": scheme.name,
        "suggests": scheme.suggests,
        "statement": found.statement,
        "decision_day": scheme.decision_day,
        "horizon_day": scheme.horizon_day,
        "source": scheme.source,
        "at_risk": found.at_risk,
        "excluded": found.excluded,
        "groups": records(found.groups),
        "logrank_p": found.logrank_p,
        "accuracy": records(found.accuracy),
        "net_benefit": records(found.net_benefit),
        "notes": list(found.notes),
    }


def scheme_lines(found: SchemeEvaluation) -> list[str]:
    """Say in plain words what a scheme would have done."""
    scheme = found.scheme
    lines = [
        f"Scheme {scheme.name} ({scheme.suggests}); {found.statement}.",
        f"  {found.at_risk} patients at risk on day {scheme.decision_day:g}, followed to day {scheme.horizon_day:g}:",
    ]
    for row in found.groups.to_dict("records"):
        known = not pd.isna(row["treated_before"])
        treated = f"; treated before the decision {row['treated_before']}, after it {row['treated_after']}"
        survival = "" if math.isnan(row["rfs"]) else f", free of the event {share(row['rfs'], row['low'], row['high'])}"
        told = treated if known and row["patients"] else ""
        lines.append(f"  {row['group']}: {row['patients']} patients, {row['events']} events{survival}{told}")
    if found.logrank_p is not None:
        lines.append(f"  named against not named, log-rank p = {found.logrank_p:.3g}")
    lines += [
        f"  {row['quantity']}: {share(row['estimate'], row['low'], row['high'])}" for row in records(found.accuracy)
    ]
    lines.append("  net benefit if treatment is worth it from a risk of (naming everybody in brackets):")
    for benefits in records(found.net_benefit):
        benefit, low, high, everybody = (_number(benefits[name]) for name in ("scheme", "low", "high", "everybody"))
        lines.append(f"    {100 * benefits['threshold']:.0f} %: {benefit} ({low} to {high}) [{everybody}]")
    return [*lines, *(f"  note: {note}" for note in found.notes)]


def effect_facts(found: TreatmentEffect) -> dict[str, Any]:
    """Put an effect of treatment into plain values; None where there is no figure."""
    return {
        "statement": found.statement,
        "method": found.method,
        "population": found.population,
        "landmark": found.landmark,
        "grace": found.grace,
        "horizon": found.horizon,
        "time_unit": found.time_unit,
        "patients": found.patients,
        "excluded": found.excluded,
        "numbers": records(found.numbers),
        "strata": records(found.strata),
        "interaction": records(found.interaction),
        "balance": records(found.diagnostics.balance),
        "effective": records(found.diagnostics.effective),
        "warnings": list(found.diagnostics.warnings),
        "notes": list(found.notes),
    }


def effect_lines(found: TreatmentEffect) -> list[str]:
    """Say in plain words what treatment did, by marker."""
    unit = found.time_unit
    lines = [
        f"Effect of adjuvant treatment by CTC status: {found.statement}.",
        f"  {found.patients} patients at risk at {found.landmark:g} {unit}; treated means begun within "
        f"{found.grace:g} {unit} from then; {found.method}, {_population(found.population)}.",
    ]
    for stratum, rows in found.strata.groupby("stratum", sort=False):
        counts = found.numbers[found.numbers["stratum"] == stratum].set_index("treated")["patients"]
        lines.append(f"  CTC-{stratum}, {counts[True]} treated and {counts[False]} untreated:")
        lines += [f"    {_effect(row, found)} ({found.statement})" for row in records(rows)]
    lines.append("  CTC-positive against CTC-negative:")
    for row in records(found.interaction):
        p = "" if row["p"] is None else f", p = {row['p']:.3g}"
        lines.append(f"    {_contrast(row, found)}{p} ({found.statement})")
    return [*lines, *(f"  note: {note}" for note in found.notes)]


def plan_facts(plan: Plan, power: Power | None, size: SampleSize | None) -> dict[str, Any]:
    """Put a plan and what came of it into plain values."""
    found = size.found if size is not None else power
    formula = None
    if size is not None and size.formula is not None:
        formula = {"events": size.formula[0], "patients": size.formula[1]}
    return {
        "statement": "SIMULATED trials under the assumptions named",
        "plan": asdict(plan),
        "sources": plan.sources,
        "target": None if size is None else size.target,
        "found": None if found is None else asdict(found),
        "tried": [] if size is None else [asdict(tried) for tried in size.tried],
        "schoenfeld": formula,
    }


def plan_lines(plan: Plan, found: Power, size: SampleSize | None) -> list[str]:
    """Say in plain words how large a trial must be, or what power it has, and on what that rests."""
    from ctc_imaging.recurrence.trial_plan import DESIGNS, QUESTIONS

    question = f"; {QUESTIONS[plan.question]}" if plan.design == "marker-stratified" else ""
    wanted = "" if size is None else f" for the {100 * size.target:.0f} % asked for"
    lines = [
        f"{plan.design}: {DESIGNS[plan.design]}{question}",
        f"{found.patients} patients, {found.screened} tested for CTCs: power {100 * found.power:.1f} % "
        f"(+- {100 * found.error:.1f}, {found.replicates} SIMULATED trials){wanted}; "
        f"{found.events:.0f} events expected",
    ]
    if size is not None and size.formula is not None:
        events, patients = size.formula
        lines.append(f"Schoenfeld's formula: {events:.0f} events, about {patients:.0f} patients")
    if size is not None:
        tried = ", ".join(f"{one.patients}: {100 * one.power:.0f} %" for one in size.tried)
        lines.append(f"sizes tried, and their power: {tried}")
    lines.append("assumed:")
    lines += [f"  {name} {getattr(plan, name):g} ({source})" for name, source in plan.sources.items()]
    return lines


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values for JSON: None for what is missing."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows]


def share(value: float | None, low: float | None, high: float | None) -> str:
    """Write a share with limits in per cent."""
    if value is None or math.isnan(value):
        return "not known"
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _effect(row: dict[str, Any], found: TreatmentEffect) -> str:
    at = f"at {found.horizon:g} {found.time_unit} " if row["quantity"] in _SHARES else ""
    return f"{_QUANTITY_WORDS[row['quantity']]} {at}{_figures(row, found.time_unit)}".replace("  ", " ")


def _contrast(row: dict[str, Any], found: TreatmentEffect) -> str:
    words = {
        "rfs_difference": f"difference of the differences at {found.horizon:g} {found.time_unit}",
        "restricted_mean_difference": "difference of the times gained",
        "hazard_ratio": "ratio of hazard ratios",
    }
    return f"{words[row['quantity']]} {_figures(row, found.time_unit)}"


def _figures(row: dict[str, Any], unit: str) -> str:
    if row["quantity"] in _SHARES:
        return share(row["estimate"], row["low"], row["high"])
    if row["estimate"] is None:
        return "not known"
    digits, after = (1, f" {unit}") if row["quantity"] == "restricted_mean_difference" else (2, "")
    limits = "" if row["low"] is None else f" ({row['low']:.{digits}f} to {row['high']:.{digits}f})"
    return f"{row['estimate']:.{digits}f}{after}{limits}"


def _population(population: str) -> str:
    return {
        "overlap": "patients who might as well have had the other treatment (overlap weights)",
        "whole": "all patients (inverse-probability weights)",
    }[population]


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
