"""What a joint model's fit and prediction cost, beside lifelines' time-varying Cox model on the same rows.

    python benchmarks/joint_model_speed.py [--aids ../shared/data/aids] [--repeats 3] [--sizes 300,1200,5000,20000]

Known data: `aids`, 467 patients. Growing cohorts are SIMULATED, as of joint_model_coverage.py (negative binomial counts
at up to six visits, volume of blood as exposure); lifelines gets the same visits as intervals, log2(count + 1) carried
forward. It is a yardstick of the machine, not a rival: it fits another, simpler model. Seconds are the fit's own,
with standard errors, the best of several.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from joint_model_coverage import PATIENTS, WORLDS, draw

from ctc_imaging.recurrence.follow_up import FollowUp, follow_up_of_tables
from ctc_imaging.recurrence.joint import JointModel, JointSpec, MarkerSpec, fit_joint, predict_patient

if TYPE_CHECKING:
    from collections.abc import Callable

AIDS = Path(__file__).parents[2] / "shared" / "data" / "aids"
SIZES = (300, 1200, 5000, 20000)
FAMILY = "negative-binomial"
COUNTS = JointSpec((MarkerSpec("ctc ~ year", FAMILY, ("intercept",), "volume_ml"),), "covariate")
SLOPES = JointSpec((MarkerSpec("ctc ~ year", FAMILY, ("intercept", "slope"), "volume_ml"),), "covariate")
CD4 = JointSpec((MarkerSpec("CD4 ~ obstime + obstime:drug"),), "drug")
PREDICTED = 40


def aids(folder: Path) -> FollowUp:
    """Read the known data."""
    columns = {"id": "patient", "time": "obstime", "event_time": "Time", "event": "death"}
    return follow_up_of_tables(folder / "aids_long.csv", folder / "aids_id.csv", **columns)


def simulated(size: int) -> FollowUp:
    """Join as many cohorts of the coverage benchmark as give so many patients."""
    cohorts = [draw(WORLDS[0], True, seed) for seed in range(-(-size // PATIENTS))]
    long = pd.concat([one.long.assign(patient=one.long["patient"] + 1000 * n) for n, one in enumerate(cohorts)])
    events = pd.concat([one.events.assign(patient=one.events["patient"] + 1000 * n) for n, one in enumerate(cohorts)])
    events = events.head(size)
    return FollowUp(long[long["patient"].isin(events["patient"])], events, "patient", "year", "end", "event", "years")


def best(fit: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Run a fit several times; the fastest tells least of what else the machine did."""
    seconds, found = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        found = fit()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), found


def intervals(follow_up: FollowUp, value: Callable[[pd.DataFrame], pd.Series], covariate: pd.Series) -> pd.DataFrame:
    """Cut follow-up at the visits, the marker carried forward."""
    rows = follow_up.long.drop_duplicates([follow_up.id, follow_up.time], keep="last")
    ends = follow_up.events.set_index(follow_up.id)
    who, start = rows[follow_up.id], rows[follow_up.time]
    following = start.groupby(who).shift(-1)
    stop = following.fillna(who.map(ends[follow_up.event_time]))
    event = who.map(ends[follow_up.event]) & following.isna()
    table = {"id": who, "start": start, "stop": stop, "event": event, "value": value(rows), "x": who.map(covariate)}
    return pd.DataFrame(table).query("start < stop")


def lifelines_seconds(rows: pd.DataFrame, repeats: int) -> float:
    """Time lifelines' time-varying Cox model."""
    from lifelines import CoxTimeVaryingFitter

    columns = {"id_col": "id", "event_col": "event", "start_col": "start", "stop_col": "stop"}
    return best(lambda: CoxTimeVaryingFitter().fit(rows, **columns, fit_options={"step_size": 0.5}), repeats)[0]


def fitted(spec: JointSpec, follow_up: FollowUp, repeats: int) -> tuple[dict[str, Any], JointModel]:
    """Fit several times."""
    models = [fit_joint(spec, follow_up) for _ in range(repeats)]
    quickest = min(models, key=lambda model: model.seconds)
    found = {
        "patients": quickest.subjects,
        "measurements": sum(quickest.measurements),
        "events": quickest.events,
        "seconds": quickest.seconds,
        "milliseconds_a_patient": 1000 * quickest.seconds / quickest.subjects,
        "converged": quickest.converged,
        "log_likelihood": quickest.log_likelihood,
    }
    return found, quickest


def prediction_milliseconds(model: JointModel, follow_up: FollowUp, landmark: float, horizons: list[float]) -> float:
    """Median time of one patient's risks with limits."""
    at_risk = follow_up.at(landmark).subjects[:PREDICTED]
    patients = [follow_up.subset([one]) for one in at_risk]
    seconds = []
    for patient in patients:
        begun = time.perf_counter()
        predict_patient(model, patient, landmark, horizons)
        seconds.append(time.perf_counter() - begun)
    return 1000 * float(np.median(seconds))


def known(folder: Path, repeats: int) -> dict[str, Any]:
    """Measure on aids."""
    follow_up = aids(folder)
    found, model = fitted(CD4, follow_up, repeats)
    found["piecewise_seconds"] = fitted(JointSpec(CD4.markers, "drug", baseline="piecewise"), follow_up, repeats)[0][
        "seconds"
    ]
    drug = (follow_up.events.set_index("patient")["drug"] == "ddI") * 1.0
    rows = intervals(follow_up, lambda table: table["CD4"], drug)
    found["lifelines_seconds"] = lifelines_seconds(rows, repeats)
    found["prediction_ms"] = prediction_milliseconds(model, follow_up, 6.0, [9.0, 12.0, 18.0])
    return found


def growth(sizes: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Measure on ever larger cohorts."""
    results = []
    for size in sizes:
        follow_up = simulated(size)
        times = repeats if size <= 1200 else 1
        found, model = fitted(COUNTS, follow_up, times)
        found["with_slopes_seconds"] = fitted(SLOPES, follow_up, times)[0]["seconds"]
        covariate = follow_up.events.set_index("patient")["covariate"]
        rows = intervals(follow_up, lambda table: np.log2(table["ctc"] + 1), covariate)
        found["lifelines_seconds"] = lifelines_seconds(rows, times)
        found["prediction_ms"] = prediction_milliseconds(model, follow_up, 0.6, [1.0, 2.0])
        results.append(found)
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aids", type=Path, default=AIDS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    real = known(options.aids, options.repeats) if options.aids.is_dir() else None
    larger = growth(tuple(int(size) for size in options.sizes.split(",")), options.repeats)
    if options.json:
        print(json.dumps({"aids": real, "growth": larger}, indent=1))
        return
    if real:
        print(f"aids: {real['patients']} patients, {real['measurements']:,} measurements, random intercept and slope")
        print(f"  Weibull    {real['seconds']:.2f} s, log-likelihood {real['log_likelihood']:.6f}")
        print(f"  piecewise  {real['piecewise_seconds']:.2f} s")
        print(f"  one patient's risks at three horizons, with limits: {real['prediction_ms']:.0f} ms")
        print(f"  lifelines' Cox model {real['lifelines_seconds']:.2f} s", end=", ")
        print(f"the joint model {real['seconds'] / real['lifelines_seconds']:.1f} times as long")
    print("\nSIMULATED negative binomial counts; s, and ms a patient\n")
    print("| Patients | Counts | Intercept, s | ms a patient | And slope, s | Beside lifelines | Predict one, ms |")
    print("|---|---|---|---|---|---|---|")
    for row in larger:
        print(
            f"| {row['patients']:,} | {row['measurements']:,} | {row['seconds']:.2f} | "
            f"{row['milliseconds_a_patient']:.2f} | {row['with_slopes_seconds']:.2f} | "
            f"{row['seconds'] / row['lifelines_seconds']:.1f} x {row['lifelines_seconds']:.2f} s | "
            f"{row['prediction_ms']:.0f} |"
        )
    if not all(row["converged"] for row in larger):
        print("\nNot every fit converged.")


if __name__ == "__main__":
    main()
