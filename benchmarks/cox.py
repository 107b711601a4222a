"""The Cox fitter beside lifelines' on one table of visits, and how its cost grows with the rows.

    python benchmarks/cox.py [--visits ../shared/data/hcc_sysucc_series/dtsdhcc_long.csv] [--repeats 5] [--json]

The table is `hcc_sysucc_series` (11,535 intervals of 2,360 patients); both fitters get the same rows and formula, and
their own formula handling, checks and standard errors are timed with them. The growing tables are SIMULATED.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.fitting import CoxFit, fit_cox
from ctc_imaging.recurrence.proportional import proportional_hazards_test

if TYPE_CHECKING:
    from collections.abc import Callable

VISITS = Path(__file__).parents[2] / "shared" / "data" / "hcc_sysucc_series" / "dtsdhcc_long.csv"
FORMULA = "vascular_invasion + distant_met + child_pugh + largest_mm + log2_afp"
COLUMNS = ["id", "start", "stop", "event", "vascular_invasion", "distant_met", "child_pugh", "largest_mm", "log2_afp"]
SIZES = (10_000, 40_000, 160_000, 640_000)


def intervals(path: Path) -> pd.DataFrame:
    """Cut follow-up at the visits; of two visits on one day the later stays."""
    visits = pd.read_csv(path).sort_values(["id", "day"], kind="stable").drop_duplicates(["id", "day"], keep="last")
    survival = visits["os_day_from_first"].clip(lower=0.5)
    following = visits.groupby("id")["day"].shift(-1)
    visits["stop"] = np.minimum(following.fillna(survival), survival)
    visits["event"] = (visits["death"] == 1) & following.isna()
    visits["log2_afp"] = np.log2(visits["afp"] + 1)
    return visits.rename(columns={"day": "start"}).query("start < stop")[COLUMNS]


def simulated(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Five visits a patient; the hazard follows the last one."""
    patient, visit = np.divmod(np.arange(rows), 5)
    x = rng.normal(size=(rows, 5))
    length = rng.exponential(2.0 * np.exp(-0.5 * x[:, 0]))
    start = visit * 1.0
    event = (length < 1.0) & (rng.random(rows) < 0.3)
    stop = start + np.where(event, length, 1.0)
    table = pd.DataFrame(x, columns=list("abcde"))
    return table.assign(id=patient, start=start, stop=stop, event=event)


def best_time(fit: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Run a fit several times; the fastest tells least of what else the machine did."""
    seconds, result = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        result = fit()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), result


def ours(rows: pd.DataFrame, formula: str) -> CoxFit:
    """Fit with all checks, overlaps of one patient's intervals among them."""
    return fit_cox(rows, formula, start="start", stop="stop", event="event", id="id")


def theirs(rows: pd.DataFrame) -> Any:
    """Fit by lifelines with the half steps that it needs on data such as pbc."""
    from lifelines import CoxTimeVaryingFitter

    columns = {"id_col": "id", "event_col": "event", "start_col": "start", "stop_col": "stop"}
    return CoxTimeVaryingFitter().fit(rows, **columns, formula=FORMULA, fit_options={"step_size": 0.5})


def compare(path: Path, repeats: int) -> dict[str, float]:
    """Time both fitters on the same rows."""
    rows = intervals(path)
    own_seconds, own = best_time(lambda: ours(rows, FORMULA), repeats)
    other_seconds, other = best_time(lambda: theirs(rows), max(2, repeats // 2))
    coefficients = other.params_[list(own.names)].to_numpy()
    test_seconds, _ = best_time(lambda: proportional_hazards_test(own), repeats)
    return {
        "rows": len(rows),
        "events": own.events,
        "seconds": own_seconds,
        "lifelines_seconds": other_seconds,
        "ratio": other_seconds / own_seconds,
        "largest_difference": float(np.abs(own.coefficients - coefficients).max()),
        "log2_afp": float(own.coefficients[-1]),
        "log2_afp_error": float(own.standard_errors[-1]),
        "proportional_hazards_seconds": test_seconds,
    }


def growth(repeats: int, seed: int = 0) -> list[dict[str, float]]:
    """Time the fit on tables four times larger each."""
    rng = np.random.default_rng(seed)
    found = []
    for size in SIZES:
        rows = simulated(size, rng)
        seconds, fit = best_time(lambda rows=rows: ours(rows, "a + b + c + d + e"), max(2, repeats // 2))
        found.append(
            {"rows": size, "events": fit.events, "seconds": seconds, "microseconds_a_row": 1e6 * seconds / size}
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=Path, default=VISITS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    both = compare(options.visits, options.repeats) if options.visits.is_file() else None
    sizes = growth(options.repeats)
    if options.json:
        print(json.dumps({"lifelines": both, "growth": sizes}, indent=1))
        return
    if both is None:
        print(f"No table at {options.visits}: no comparison with lifelines.")
    else:
        print(f"{both['rows']:,} intervals, {both['events']:,} events, 5 covariates")
        print(f"  ours       {1000 * both['seconds']:8.1f} ms")
        print(f"  lifelines  {1000 * both['lifelines_seconds']:8.1f} ms   {both['ratio']:.0f} times as long")
        print(f"  largest difference of a coefficient {both['largest_difference']:.1e}")
        print(f"  log2(AFP + 1) {both['log2_afp']:.7f} ({both['log2_afp_error']:.7f})")
        print(f"  test of proportional hazards {1000 * both['proportional_hazards_seconds']:.1f} ms")
    print("SIMULATED tables, five rows a patient, 5 covariates")
    for row in sizes:
        cost = f"{row['seconds']:7.3f} s, {row['microseconds_a_row']:.2f} µs a row"
        print(f"  {row['rows']:>9,} rows {row['events']:>8,} events {cost}")


if __name__ == "__main__":
    main()
