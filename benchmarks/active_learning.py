"""How many labels the order for learning saves against chance, where a model meets slides unlike its training's.

    python benchmarks/active_learning.py --cache learning-slides

A small network on the columns of cells.parquet learns from standard slides. Then slides of the eight harder settings
come, of which k cells are labelled, chosen in one of four orders by the network's own doubt; it is trained anew with
them and measured on further slides of these settings. Everything here is SIMULATED, and the network isn't the shipped
one, which sees pixels: it says which order teaches more, nothing about how well a model does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ctc_training.dataset import label_cells
from ctc_training.reference import call_simulated
from napari_ctc.queue_cells import doubt
from torch import nn

from ctc_imaging.classification import CLASSES, Classifier, load_model
from ctc_imaging.classification.next_cells import learning_order
from ctc_imaging.files import write_parquet
from ctc_imaging.panel import load_panel
from ctc_imaging.simulation import SETTINGS, simulate_slide

LABELS = (0, 25, 50, 100, 200)
ORDERS = {
    "random": "any cell, by chance",
    "candidates": "candidates (ctc, indeterminate), by chance",
    "doubt": "candidates, the default order of review: nearest to the border of calling",
    "learning": "candidates in the order for learning",
}
HARDER = [name for name in SETTINGS if name != "standard"]
FIRST_SEED = 760_000
SHAPE_PX, LEUKOCYTES = (2048, 2048), 2500
# Share of each class at which the network's doubt is told, and labels weigh as many of the first cells each.
PREVALENCE = np.array([0.005, 0.955, 0.04])
LABEL_WEIGHT = 3.0
_FIRST_CELLS = {"ctc": 300, "leukocyte": 3000, "artefact": 900}
_INDETERMINATE_FROM, _CLEAR_FROM = 0.01, 0.6
_FALSE_PER_LEUKOCYTE = 1e-4

Model = Callable[[torch.Tensor], np.ndarray]


def main() -> None:
    """Print loss and sensitivity by order and number of labels, over several draws of slides and cells."""
    options = _options()
    torch.set_num_threads(1)
    classifier = load_model()
    known = _slides(classifier, options.cache, ["standard"], 12, ctc=40, first_seed=FIRST_SEED)
    pool = _slides(classifier, options.cache, HARDER, 4, ctc=10, first_seed=FIRST_SEED + 100)
    test = _slides(classifier, options.cache, HARDER, 3, ctc=80, first_seed=FIRST_SEED + 200)
    rows = [row for seed in range(options.draws) for row in _draw(known, pool, test, seed)]
    results = pd.DataFrame(rows, columns=["order", "labels", "loss", "sensitivity", "ctc"])
    print(f"All slides SIMULATED. {options.draws} draws; mean (standard deviation between draws).")
    print(f"Tested on {len(test):,} cells, {int((test['target'] == 0).sum())} of them CTCs.\n")
    print(f"{'order':11} {'labels':>6}  {'balanced log-loss':18} {'found % at 10 false per 100,000':32} CTCs labelled")
    for (order, labels), part in results.groupby(["order", "labels"], sort=False):
        loss, found = (f"{part[name].mean():.3f} ({part[name].std():.3f})" for name in ("loss", "sensitivity"))
        print(f"{order:11} {labels:6}  {loss:18} {found:32} {part['ctc'].mean():.0f}")
    print("\n" + "\n".join(f"{order}: {meaning}" for order, meaning in ORDERS.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("learning-slides"), help="keeps the labelled cells")
    parser.add_argument("--draws", type=int, default=4)
    return parser.parse_args()


def _slides(
    classifier: Classifier, cache: Path, settings: Iterable[str], count: int, ctc: int, first_seed: int
) -> pd.DataFrame:
    """Cells of simulated slides with their true class (`target`) and slide."""
    seeds = range(first_seed, first_seed + count)
    tables = [_slide(classifier, cache, setting, seed, ctc) for setting in settings for seed in seeds]
    return pd.concat(tables, ignore_index=True)


def _slide(classifier: Classifier, cache: Path, setting: str, seed: int, ctc: int) -> pd.DataFrame:
    path = cache / f"{classifier.hash[:12]}-{setting}-{seed}.parquet"
    if not path.is_file():
        simulated = simulate_slide(SHAPE_PX, ctc, LEUKOCYTES, setting, seed)
        cells, _ = call_simulated(classifier, simulated)
        target = label_cells(cells, simulated.truth, load_panel("emt-4"))["target"]
        cells.attrs = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, cells.assign(target=target, slide=f"{setting}-{seed}"))
    return pd.read_parquet(path)


def _draw(
    known: pd.DataFrame, pool: pd.DataFrame, test: pd.DataFrame, seed: int
) -> Iterable[tuple[str, int, float, float, int]]:
    """Learn from some of the known cells, meet half of the pool's slides, and learn again with labels of each order."""
    random = np.random.default_rng(seed)
    first = known.iloc[_some_of_each_class(known, random)]
    names = pool["slide"].unique()
    met = pool[pool["slide"].isin(random.choice(names, len(names) // 2, replace=False))].reset_index(drop=True)
    weights = _balanced(first)
    model = _fit(_tensor(first, known), first, weights, seed)
    orders = _orders(_called(met, model(_tensor(met, known))), random)
    for order in ORDERS:
        for labels in LABELS:
            labelled = met.iloc[orders[order][:labels]]
            cells = pd.concat([first, labelled], ignore_index=True)
            weight = np.concatenate([weights, np.full(len(labelled), LABEL_WEIGHT)])
            p = _fit(_tensor(cells, known), cells, weight, seed)(_tensor(test, known))
            yield order, labels, *_measure(p, test["target"].to_numpy()), int((labelled["target"] == 0).sum())
    print(f"draw {seed} done", flush=True)


def _some_of_each_class(cells: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    target = cells["target"].to_numpy()
    counts = [_FIRST_CELLS[name] for name in CLASSES]
    return np.concatenate([random.choice(np.flatnonzero(target == c), n, replace=False) for c, n in enumerate(counts)])


def _balanced(cells: pd.DataFrame) -> np.ndarray:
    """Weights by which each class counts the same, 1 on average."""
    target = cells["target"].to_numpy()
    return (len(cells) / len(CLASSES) / np.bincount(target))[target]


def _orders(cells: pd.DataFrame, random: np.random.Generator) -> dict[str, np.ndarray]:
    candidate = cells["call"].isin(["ctc", "indeterminate"]).to_numpy()
    candidates = np.flatnonzero(candidate)
    return {
        "random": random.permutation(len(cells)),
        "candidates": random.permutation(candidates),
        "doubt": candidates[np.argsort(doubt(cells)[candidates], kind="stable")],
        "learning": learning_order(cells, first=candidate),
    }


def _called(cells: pd.DataFrame, balanced: np.ndarray) -> pd.DataFrame:
    """Give cells the network's probabilities at the prevalence, and calls."""
    p = balanced * PREVALENCE
    p /= p.sum(axis=1, keepdims=True)
    unsure = (p[:, 0] >= _INDETERMINATE_FROM) | (p[:, 1:].max(axis=1) < _CLEAR_FROM)
    call = np.array(CLASSES, object)[p.argmax(axis=1)]
    call[unsure] = "indeterminate"
    call[p[:, 0] >= 0.5] = "ctc"
    return cells.assign(call=call, **{f"p_{name}": p[:, place] for place, name in enumerate(CLASSES)})


def _tensor(cells: pd.DataFrame, known: pd.DataFrame) -> torch.Tensor:
    """Features in units of the known cells' spread about their mean, as the network keeps them."""
    middle, spread = _features(known).mean(axis=0), _features(known).std(axis=0)
    return torch.from_numpy(((_features(cells) - middle) / spread).clip(-6, 6).astype(np.float32))


def _features(cells: pd.DataFrame) -> np.ndarray:
    signals = [np.arcsinh(cells[f"{short}_snr"]) for short in load_panel("emt-4").shorts]
    sizes = [np.log1p(cells[name]) for name in ("diameter_um", "nucleus_area_um2", "area_um2")]
    return np.column_stack([*signals, *sizes, cells["eccentricity"], cells["solidity"], cells["focus"].fillna(0)])


def _fit(x: torch.Tensor, cells: pd.DataFrame, weights: np.ndarray, seed: int, members: int = 3) -> Model:
    """Train a few small networks, whose mean probabilities hang less on how each began."""
    target, weight = torch.from_numpy(cells["target"].to_numpy()), torch.from_numpy(weights.astype(np.float32))
    networks = [_train(x, target, weight, 10 * seed + member) for member in range(members)]

    def probabilities(unseen: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return torch.stack([network(unseen).softmax(dim=1) for network in networks]).mean(dim=0).double().numpy()

    return probabilities


def _train(x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, seed: int, epochs: int = 25) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(x.shape[1], 48), nn.GELU(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 3))
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = epochs * -(-len(x) // 512)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(512):
            loss = nn.functional.cross_entropy(network(x[rows]), target[rows], reduction="none")
            optimiser.zero_grad()
            ((loss * weight[rows]).sum() / weight[rows].sum()).backward()
            optimiser.step()
            schedule.step()
    return network


def _measure(p: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Log-loss with every class counting the same, and sensitivity at 10 false CTCs per 100,000 leukocytes."""
    surprise = -np.log(np.clip(p[np.arange(len(p)), target], 1e-6, 1))
    loss = np.mean([surprise[target == place].mean() for place in range(len(CLASSES))])
    allowed = int((target == CLASSES.index("leukocyte")).sum() * _FALSE_PER_LEUKOCYTE)
    threshold = np.sort(p[target != 0, 0])[::-1][allowed]
    return float(loss), float((p[target == 0, 0] > threshold).mean())


if __name__ == "__main__":
    main()
