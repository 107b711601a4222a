"""How good the risks are for patients the model wasn't fitted to: cross-validated scores, calibration, net benefit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import survival_tables
from ctc_imaging.report.validation_chart import draw_validation
from ctc_imaging.report.words import interval, plural

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.predictor import PredictorFit
    from ctc_imaging.recurrence.validation import Predictions

LANDMARK_DAYS = (90.0, 180.0)
# Five fits of more patients take longer than a page of each run may; of fewer events nobody can judge.
MOST_PATIENTS, FEWEST_EVENTS = 1000, 25
JOINT, BASELINE = "with CTCs", "without CTCs"
_THRESHOLDS = tuple(float(at) for at in np.round(np.arange(0.1, 0.81, 0.1), 2))
_SCORES = {"auc": "AUC (1 best, 0.5 a coin)", "brier": "Brier score (0 best)"}


@dataclass(frozen=True)
class ValidationPage:
    """The part of the section; `reason` tells why there is nothing."""

    reason: str = ""
    verdict: str = ""
    figure: str = ""
    calibration_csv: str = ""
    benefit_csv: str = ""
    day: str = ""
    rows: tuple[dict[str, str], ...] = ()
    calibration: str = ""
    notes: tuple[str, ...] = ()


def validation_page(run: Run) -> ValidationPage:
    """Cross-validate the model of `risk.risk_page`, beside a Cox model of the same covariates without CTCs.

    Parameters
    ----------
    run : Run

    Returns
    -------
    ValidationPage
        Without figures, but with the reason, where there are too few events or too many patients for a page.
    """
    from ctc_imaging.recurrence.follow_up import follow_up_of_run

    horizon = float(run.folder.settings().horizon_days)
    try:
        timeline, clinical = survival_tables(run)
        if clinical is None:
            return ValidationPage("The run was given no clinical table (--clinical)")
        follow_up = follow_up_of_run(timeline, clinical)
        if reason := _unfit(follow_up, horizon):
            return ValidationPage(reason)
        return _page(_predictions(follow_up, horizon), horizon)
    except CtcImagingError as error:
        return ValidationPage(str(error))


def _unfit(follow_up: FollowUp, horizon: float) -> str:
    events, patients = int(follow_up.events[follow_up.event].sum()), len(follow_up.events)
    if events < FEWEST_EVENTS:
        return f"{plural(events, 'recurrence or death')} {'is' if events == 1 else 'are'} too few to judge a model by"
    if patients > MOST_PATIENTS:
        return f"With {patients:,} patients it takes too long here; ctc-imaging recurrence validate RUN does it"
    if horizon <= LANDMARK_DAYS[0]:
        return f"The horizon, day {horizon:g}, is too early"
    return ""


def _predictions(follow_up: FollowUp, horizon: float) -> Predictions:
    from ctc_imaging.recurrence.baseline_cox import BaselineCoxFit
    from ctc_imaging.recurrence.joint import JointPredictorFit
    from ctc_imaging.recurrence.joint.defaults import default_spec
    from ctc_imaging.recurrence.validation import by_horizon, cross_validate

    spec = default_spec(follow_up)
    models: dict[str, PredictorFit] = {JOINT: JointPredictorFit(spec), BASELINE: BaselineCoxFit(spec.event_formula)}
    return cross_validate(models, follow_up, by_horizon(LANDMARK_DAYS, (horizon,)))


def _page(predictions: Predictions, horizon: float) -> ValidationPage:
    from ctc_imaging.recurrence.validation import calibrations, difference_table, score_table

    scores, differences = score_table(predictions), difference_table(predictions, JOINT, BASELINE)
    if scores.empty:
        return ValidationPage("No fold's model could be fitted. " + " ".join(predictions.notes).rstrip("."))
    first = float(scores["landmark"].min())
    held = calibrations(predictions, JOINT)[first, horizon]
    benefit = _benefit(predictions, first, horizon)
    alt = f"Calibration and net benefit of risks told on day {first:g}, with and without CTCs"
    return ValidationPage(
        verdict=_verdict(differences[differences["landmark"] == first]),
        figure=to_svg(draw_validation(held.groups, benefit, JOINT), "validation", alt),
        calibration_csv=csv_link(held.groups),
        benefit_csv=csv_link(benefit),
        day=f"{first:g}",
        rows=_rows(scores, differences),
        calibration=f"{held.ratio.value:.2f} ({held.ratio.low:.2f} to {held.ratio.high:.2f})",
        notes=predictions.notes,
    )


def _verdict(differences: pd.DataFrame) -> str:
    gain = differences[differences["score"] == "auc"].iloc[0]
    if gain["low"] > 0:
        return "CTCs made the predictions better"
    return "CTCs made the predictions worse" if gain["high"] < 0 else "Whether CTCs make them better can't be told"


def _rows(scores: pd.DataFrame, differences: pd.DataFrame) -> tuple[dict[str, str], ...]:
    rows = []
    for gap in differences.to_dict("records"):
        own = scores[(scores["landmark"] == gap["landmark"]) & (scores["score"] == gap["score"])].set_index("model")
        rows.append({
            "from": interval(gap["landmark"]),
            "size": f"{gap['n']:,}, {gap['events']:,}",
            "score": _SCORES[gap["score"]],
            "with": _limited(own.loc[JOINT]),
            "without": _limited(own.loc[BASELINE]),
            "gap": _limited(gap, signed=True),
        })  # fmt: skip
    return tuple(rows)


def _limited(row: pd.Series | dict[Any, Any], signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{row['value']:{sign}.2f} ({row['low']:{sign}.2f} to {row['high']:{sign}.2f})".replace("-", "−")


def _benefit(predictions: Predictions, landmark: float, horizon: float) -> pd.DataFrame:
    """Net benefit of both models at the first landmark, for the patients of whom both could tell a risk."""
    from ctc_imaging.recurrence.net_benefit import decision_curve

    own = predictions.table[predictions.table["landmark"] == landmark].dropna(subset=[JOINT, BASELINE])
    risks = {name: own[name].to_numpy(float) for name in (JOINT, BASELINE)}
    time, event = own["time"].to_numpy(float), own["event"].to_numpy(bool)
    return decision_curve(risks, time, event, _THRESHOLDS, horizon, landmark)
