"""Whether the classifier can be trusted with rare cells, and how fast it is: three parts, each by its flag.

    python benchmarks/classification.py --gating --slides 2 --standard-slides 12 --data crops
    python benchmarks/classification.py --false-calls --slides 340 --data crops
    python benchmarks/classification.py --speed

`--gating`: false CTCs at equal sensitivity beside gates by thresholds, on the simulated test slides of every setting,
then on a real field of lymphocytes. `--false-calls`: what is called CTC on simulated slides without any; results are
kept slide by slide, so it may be stopped and goes on. `--speed`: cells per second beside plain torch. Simulated slides
say how the software treats the pixels it was built for, nothing about patients.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import classification_false_calls as false_calls
import classification_field as field
import classification_gating as gating
import classification_speed as speed
from ctc_training.plan import STANDARD

from ctc_imaging.classification import load_model
from ctc_imaging.simulation import SETTINGS

CORES = 2
FIELD = Path(__file__).parents[2] / "shared" / "data" / "vectra_lymphocytes"


def main() -> None:
    """Run the parts asked for."""
    options = _options()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    classifier = load_model(options.model)
    print(f"model {classifier.name}, {classifier.hash[:16]}")
    if options.gating:
        measured = gating.compare(options, classifier)
        field.compare(options.vectra, classifier, measured.get(STANDARD))
    if options.false_calls:
        false_calls.compare(options, classifier)
    if options.speed:
        speed.compare(options, classifier)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gating", action="store_true", help="beside gates by thresholds")
    parser.add_argument("--false-calls", action="store_true", help="on slides without CTCs")
    parser.add_argument("--speed", action="store_true", help="cells per second")
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", type=Path, default=Path("classification-data"), help="keeps crops and results")
    parser.add_argument("--slides", type=int, help="gating: of each setting (2); false calls: in all (4)")
    parser.add_argument("--standard-slides", type=int, help="gating: of the standard setting, if not as many")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), help="of gating")
    parser.add_argument("--seed", type=int, default=0, help="of the model, which test slides depend on (gating)")
    parser.add_argument("--vectra", type=Path, default=FIELD if FIELD.is_dir() else None, help="field of lymphocytes")
    parser.add_argument("--workers", type=int, default=CORES, help="processes of the false calls")
    parser.add_argument("--rounds", type=int, default=5, help="of speed")
    options = parser.parse_args()
    if not (options.gating or options.false_calls or options.speed):
        parser.error("choose a part: --gating, --false-calls or --speed")
    return options


if __name__ == "__main__":
    main()
