"""What repeated CTC counts add to MVI, AFP, BCLC and size: SIMULATED cohorts of 100 patients, cross-validated.

Each cohort is simulated by `ctc_imaging.simulation` (tables only; at most six visits, more than half of the counts
zero). Risk of recurrence or death by two years is predicted at day 90 and at day 180 in five folds by

- clinic at the landmark: a landmark Cox model on the four covariates;
- the same with log2(1 + CTC in 5 mL) as last counted;
- clinic from surgery: a Weibull hazard of the four covariates from surgery on, given no event until the landmark;
- joint model: the same hazard, which depends on negative binomial counts in their blood's volume too.

The second is held against the first, the fourth against the third: each pair differs by the CTCs alone. In the second
world each patient is given another patient's counts, so that these mean nothing: no gain may show. The simulation's
counts are thinned so that 57 % are zero. AUCs are means over folds: pooled over folds
they favour noise. Differences are means over cohorts, with 95 % limits of that mean; higher AUC and net benefit, lower
Brier score are better.

Run: python benchmarks/what_ctcs_add.py --cohorts 100
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.clinical import load_clinical
from ctc_imaging.counting import COUNT_COLUMNS
from ctc_imaging.recurrence.covariates import log2_ctc
from ctc_imaging.recurrence.follow_up import FollowUp, follow_up_of_run
from ctc_imaging.recurrence.joint import JointPredictorFit, JointSpec, MarkerSpec
from ctc_imaging.recurrence.landmark_cox import LandmarkCox
from ctc_imaging.recurrence.net_benefit import net_benefit
from ctc_imaging.recurrence.predictor import PredictorFit
from ctc_imaging.recurrence.validation import auc, brier, by_horizon, cross_validate
from ctc_imaging.report.source import read_table
from ctc_imaging.simulation import simulate_cohort
from ctc_imaging.timeline import build_timeline

LANDMARKS, HORIZON = (90.0, 180.0), 730.0
# Risks from which adjuvant treatment might be worth its harm.
THRESHOLDS = (0.3, 0.5)
COVARIATES = "MVI + log2_afp + stage + size_cm"
KEPT = 0.62
"""Share of the simulated CTCs that are counted."""


JOINT_SPEC = JointSpec(
    (MarkerSpec("ctc ~ day", "negative-binomial", ("intercept",), "assessed_volume_ml"),),
    COVARIATES,
)
CLINIC, CLINIC_CTC = "clinic at the landmark", "with CTC"
SURGERY, JOINT = "clinic from surgery", "joint model"
PAIRS = ((CLINIC_CTC, CLINIC), (JOINT, SURGERY))
MODELS: dict[str, PredictorFit] = {
    CLINIC: LandmarkCox((), COVARIATES),
    CLINIC_CTC: LandmarkCox(("log2_ctc",), f"log2_ctc + {COVARIATES}"),
    # The same likelihood with the counts cut off from the hazard.
    SURGERY: JointPredictorFit(replace(JOINT_SPEC, association=())),
    JOINT: JointPredictorFit(JOINT_SPEC),
}


def draw(patients: int, seed: int, meaningless: bool) -> FollowUp:
    """Simulate a cohort's tables and lay them out; `meaningless` gives each patient another's counts."""
    with tempfile.TemporaryDirectory() as folder:
        simulate_cohort(Path(folder) / "cohort", patients, seed, tables_only=True)
        clinical = load_clinical(Path(folder) / "cohort/clinical.csv")
        counts = read_table(Path(folder) / "cohort/counts.csv", COUNT_COLUMNS)
    rng = np.random.default_rng(seed)
    counted = counts["ctc"].notna()
    counts.loc[counted, "ctc"] = rng.binomial(counts.loc[counted, "ctc"].astype(int), KEPT)
    timeline = build_timeline(counts, clinical, None, None)
    if meaningless:
        names = sorted(timeline["patient_id"].unique())
        dealt = rng.permutation(names)
        timeline["patient_id"] = timeline["patient_id"].map(dict(zip(dealt, np.roll(dealt, 1), strict=True)))
    follow_up = follow_up_of_run(timeline, clinical)
    long = follow_up.long.assign(log2_ctc=log2_ctc(follow_up.long["ctc"] / follow_up.long["assessed_volume_ml"]))
    events = follow_up.events.assign(
        log2_afp=np.log2(1 + follow_up.events["AFP"].astype(float)),
        stage=follow_up.events["BCLC"].astype(str).map({"0": 0.0, "A": 1.0, "B": 2.0, "C": 3.0}),
    )
    return replace(follow_up, long=long, events=events, notes=())


def measure(task: tuple[int, int, bool]) -> list[dict[str, object]]:
    """Cross-validate one cohort; one row a landmark, model and score."""
    patients, seed, meaningless = task
    follow_up = draw(patients, seed, meaningless)
    found = cross_validate(MODELS, follow_up, by_horizon(LANDMARKS, (HORIZON,)), seed=seed)
    base = {"seed": seed, "zeros": float((follow_up.long["ctc"] == 0).mean()), "failed": len(found.notes)}
    rows: list[dict[str, object]] = []
    for landmark, own in found.table.dropna(subset=list(MODELS)).groupby("landmark"):
        time, event = own["time"].to_numpy(float), own["event"].to_numpy(bool)
        for name in MODELS:
            risk = own[name].to_numpy(float)
            scores = {"AUC": _auc_within_folds(own, name), "Brier": brier(risk, time, event, HORIZON)}
            scores |= {
                f"net benefit at {at:.0%}": net_benefit(risk >= at, time, event, at, HORIZON) for at in THRESHOLDS
            }
            rows += [
                {**base, "landmark": landmark, "model": name, "score": key, "value": value, "n": len(own)}
                for key, value in scores.items()
            ]
    return rows


def _auc_within_folds(own: pd.DataFrame, name: str) -> float:
    """Mean AUC of the folds: over folds, a model is punished for what its other folds happened to hold."""
    found = []
    for _, part in own.groupby("fold"):
        columns = part[name].to_numpy(float), part["time"].to_numpy(float), part["event"].to_numpy(bool)
        found.append(auc(*columns, HORIZON))
    return float(np.nanmean(found))


def report(world: str, rows: pd.DataFrame) -> None:
    """Print one world's table."""
    zeros, failed = rows.groupby("seed")[["zeros", "failed"]].first().mean()
    print(f"\n### {world}: {rows['seed'].nunique()} SIMULATED cohorts, {zeros:.0%} of counts zero;", end=" ")
    print(f"fits that failed: {failed:.2f} a cohort\n")
    heads = [head for more, base in PAIRS for head in (base, f"{more}, less that", "better in")]
    print(f"| Day | Score | {' | '.join(heads)} |")
    print(f"|{'---|' * (len(heads) + 2)}")
    for (landmark, score), own in rows.groupby(["landmark", "score"]):
        wide = own.pivot(index="seed", columns="model", values="value")
        sign = -1 if score == "Brier" else 1
        cells = []
        for more, base in PAIRS:
            gain = wide[more] - wide[base]
            cells += [f"{wide[base].mean():.3f}", _mean(gain), f"{(sign * gain > 0).mean():.0%}"]
        print(f"| {landmark:g} | {score} | {' | '.join(cells)} |")


def _mean(gain: pd.Series) -> str:
    half = 1.96 * gain.std() / np.sqrt(gain.notna().sum())
    return f"{gain.mean():+.4f} ({gain.mean() - half:+.4f} to {gain.mean() + half:+.4f})"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=100)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for world, meaningless in (("CTCs that mean something", False), ("CTCs that mean nothing", True)):
        tasks = [(options.patients, 70_000 + number, meaningless) for number in range(options.cohorts)]
        with ProcessPoolExecutor(options.workers) as pool:
            rows = [row for cohort in pool.map(measure, tasks) for row in cohort]
        report(world, pd.DataFrame(rows))


if __name__ == "__main__":
    main()
