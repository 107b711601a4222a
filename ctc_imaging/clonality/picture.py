"""A patient's mutations by sample, ordered by clone, the tree beside them and the shared fractions under them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctc_imaging.files import atomic_path

INK, SOFT, LINE = "#1f2933", "#52606d", "#c9d1da"
PRESENT, ABSENT, SHADE = "#0b5394", "#ffffff", "#f1f3f6"
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 8, "axes.linewidth": 0.6}
KIND_WORDS = {
    "primary": "primary",
    "ctc": "CTC",
    "ctc_pool": "CTC pool",
    "ctc_cluster": "CTC cluster",
    "relapse": "relapse",
    "metastasis": "metastasis",
}
_KIND_ORDER = tuple(KIND_WORDS)
_NAMED = 45
"""With more mutations their names can't be read and are left out."""

_NAME_LETTERS = 24
_TRUNK = 0.9
_ROW_IN, _LEAST_ROWS_IN, _MOST_ROWS_IN = 0.135, 1.6, 7.0
_COLUMN_IN, _SHARED_IN, _TREE_IN, _NAMES_IN = 0.46, 0.28, 1.7, 1.9
_HEAD_IN, _BELOW_IN, _FOOT_IN, _TITLE_IN = 0.62, 1.0, 0.15, 2.9


def draw_study(patient: dict[str, Any], *, simulated: bool = False) -> Figure:
    """Draw one patient.

    Parameters
    ----------
    patient : dict
        As in clonality.json.
    simulated : bool
        Whether to write on the drawing that its data are simulated.

    Returns
    -------
    Figure
        Left the tree, each clone beside its mutations; in the middle a row a mutation and a column a sample: filled
        where present, empty where absent, a dot where not known; below, the share of all mutations seen in either of
        two samples that both have.
    """
    samples, mutations = ordered_samples(patient["samples"]), patient["mutations"]
    rows_in = float(np.clip(len(mutations) * _ROW_IN, _LEAST_ROWS_IN, _MOST_ROWS_IN))
    tree_in = _TREE_IN if patient["clones"] else 1.0
    columns_in, shared_in = max(_COLUMN_IN * len(samples), 1.2), _SHARED_IN * len(samples)
    width = tree_in + max(columns_in + (_NAMES_IN if len(mutations) <= _NAMED else 0.3), _TITLE_IN)
    above = _FOOT_IN + shared_in + _BELOW_IN
    height = above + rows_in + _HEAD_IN
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))

        def place(left: float, bottom: float, wide: float, high: float) -> Axes:
            return figure.add_axes((left / width, bottom / height, wide / width, high / height))

        draw_matrix(place(tree_in, above, columns_in, rows_in), samples, mutations, patient["patient_id"])
        if patient["clones"]:
            draw_tree(place(0.02, above, tree_in - 0.06, rows_in), patient)
        shared = place(tree_in, _FOOT_IN, columns_in, shared_in)
        draw_shared(shared, samples, patient["pairs"], patient["patient_id"])
        title = f"{patient['patient_id']}{' · SIMULATED' if simulated else ''}"
        figure.text(0.05 / width, 1 - 0.1 / height, title, va="top", fontsize=9, fontweight="bold", color=INK)
    return figure


def write_picture(patient: dict[str, Any], path: Path, *, simulated: bool = False) -> None:
    """Write the drawing as a PNG, in one step."""
    figure = draw_study(patient, simulated=simulated)
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160, metadata={"Software": None})


def ordered_samples(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order samples for reading: the primary, CTCs by day, relapse and metastases."""
    return sorted(
        samples,
        key=lambda s: (
            0 if s["kind"] == "primary" else 2 if s["kind"] in ("relapse", "metastasis") else 1,
            np.inf if s["day"] is None else s["day"],
            _KIND_ORDER.index(s["kind"]),
        ),
    )


def draw_matrix(axes: Axes, samples: list[dict[str, Any]], mutations: list[dict[str, Any]], patient: str = "") -> None:
    """Draw presence by mutation (rows, the first on top) and sample (columns)."""
    calls = np.array([[_number(row["calls"].get(s["sample_id"])) for s in samples] for row in mutations], float)
    named = len(mutations) <= _NAMED
    shown = np.where(np.isnan(calls), 0.0 if named else 0.25, calls)
    axes.pcolormesh(
        np.arange(len(samples) + 1) - 0.5,
        np.arange(len(mutations) + 1) - 0.5,
        shown,
        cmap=matplotlib.colors.LinearSegmentedColormap.from_list("seen", [ABSENT, PRESENT]),
        vmin=0,
        vmax=1,
        rasterized=not named,
    )
    if named:
        axes.hlines(np.arange(len(mutations) + 1) - 0.5, -0.5, len(samples) - 0.5, color=LINE, linewidth=0.4)
        unknown = np.argwhere(np.isnan(calls))
        axes.plot(unknown[:, 1], unknown[:, 0], ".", color=SOFT, markersize=2.5)
    axes.vlines(np.arange(1, len(samples)) - 0.5, -0.5, len(mutations) - 0.5, color="white", linewidth=2.5)
    axes.vlines(np.arange(len(samples) + 1) - 0.5, -0.5, len(mutations) - 0.5, color=LINE, linewidth=0.5)
    axes.hlines(_boundaries(mutations), -0.5, len(samples) - 0.5, color=INK, linewidth=1.2)
    axes.set_ylim(len(mutations) - 0.5, -0.5)
    axes.set_xlim(-0.5, len(samples) - 0.5)
    _name_matrix(axes, samples, mutations if named else [], patient)
    unknown_words = "dot: not known" if named else "pale: not known"
    words = f"{len(mutations)} mutation{'' if len(mutations) == 1 else 's'}\nfilled: seen, empty: not seen, "
    axes.set_title(words + unknown_words, fontsize=7, color=SOFT, loc="left", pad=4)


def _name_matrix(axes: Axes, samples: list[dict[str, Any]], mutations: list[dict[str, Any]], patient: str) -> None:
    names = [sample_words(sample, patient) for sample in samples]
    axes.set_xticks(range(len(samples)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.yaxis.tick_right()
    axes.set_yticks(range(len(mutations)), [mutation_words(row) for row in mutations])
    axes.tick_params(length=0, labelsize=6.5, colors=INK, pad=3)
    for spine in axes.spines.values():
        spine.set_color(LINE)


def mutation_words(mutation: dict[str, Any]) -> str:
    """Name a mutation on the drawing, its gene first; long alleles are cut."""
    name = mutation["mutation"]
    name = name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 1]}…"
    return f"{mutation['gene']}  {name}" if mutation["gene"] else name


def sample_words(sample: dict[str, Any], patient: str = "") -> str:
    """Name a sample on the drawing: its id without the patient's, and the day since surgery where it is known."""
    name = str(sample["sample_id"]).removeprefix(patient).lstrip("-_ ") or str(sample["sample_id"])
    if sample["day"] is None:
        return name
    return f"{name}\nday {sample['day']:.0f}".replace("day -", "day −")


def draw_tree(axes: Axes, patient: dict[str, Any]) -> None:
    """Draw the clones as a tree from left to right, each at the height of its mutations."""
    mutations = patient["mutations"]
    clones = {clone["clone"]: clone for clone in patient["clones"]}
    heights = {
        key: float(np.mean([place for place, row in enumerate(mutations) if row["clone"] == key] or [0]))
        for key in clones
    }
    depths = {key: _depth(key, clones) for key in clones}
    for key, clone in clones.items():
        if not clone["placed"]:
            continue
        x, y, parent = depths[key], heights[key], clone["parent"]
        before = (0.0, heights[_root(key, clones)]) if parent is None else (depths[parent], heights[parent])
        axes.plot(
            np.array([before[0], before[0], x]),
            np.array([before[1], y, y]),
            color=INK,
            linewidth=1.1,
            solid_capstyle="round",
        )
    for key, clone in clones.items():
        if clone["placed"]:
            _draw_clone(axes, clone, depths[key], heights[key])
    misfits = [place for place, row in enumerate(mutations) if row["clone"] in _misfits(clones)]
    if misfits:
        words = f"{len(misfits)} fit nowhere"
        axes.text(0.2, float(np.mean(misfits)), words, va="center", fontsize=6.5, color=SOFT, style="italic")
    axes.set_ylim(len(mutations) - 0.5, -0.5)
    axes.set_xlim(-0.3, max(depths.values()) + 0.8)
    axes.axis("off")
    support = patient["tree_support"]
    axes.set_title(f"tree (support {support:.2f})", fontsize=7, color=SOFT, loc="left", pad=4)


def _draw_clone(axes: Axes, clone: dict[str, Any], x: float, y: float) -> None:
    trunk = clone["trunk"] is not None and clone["trunk"] >= _TRUNK
    axes.scatter([x], [y], s=45, facecolor=INK if trunk else "white", edgecolor=INK, linewidth=1.2, zorder=3)
    words = f"{len(clone['mutations'])}{' trunk' if trunk else ''}"
    axes.annotate(words, (x, y), (4, 3), textcoords="offset points", va="bottom", fontsize=6.5, color=INK)


def _misfits(clones: dict[int, dict[str, Any]]) -> set[int]:
    return {key for key, clone in clones.items() if not clone["placed"]}


def _depth(key: int, clones: dict[int, dict[str, Any]]) -> float:
    if not clones[key]["placed"]:
        return 1.0
    depth, at = 1.0, clones[key]["parent"]
    while at is not None:
        depth, at = depth + 1, clones[at]["parent"]
    return depth


def _root(key: int, clones: dict[int, dict[str, Any]]) -> int:
    while clones[key]["parent"] is not None:
        key = clones[key]["parent"]
    return key


def draw_shared(axes: Axes, samples: list[dict[str, Any]], pairs: list[dict[str, Any]], patient: str = "") -> None:
    """Draw the shared fraction of every pair in the lower triangle, with its figure; darker is more."""
    ids = [sample["sample_id"] for sample in samples]
    share = np.full((len(ids), len(ids)), np.nan)
    for pair in pairs:
        seen = pair["shared"] + pair["private_a"] + pair["private_b"]
        a, b = sorted((ids.index(pair["sample_a"]), ids.index(pair["sample_b"])))
        share[b, a] = pair["shared"] / seen if seen else np.nan
    colours = matplotlib.colors.LinearSegmentedColormap.from_list("shared", ["#ffffff", PRESENT])
    axes.pcolormesh(np.ma.masked_invalid(share), cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for (row, column), value in np.ndenumerate(share):
        if not np.isnan(value):
            tint = "white" if value > 0.5 else INK
            axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=tint)
    axes.set_ylim(len(ids), 0)
    names = [sample_words({**sample, "day": None}, patient) for sample in samples]
    axes.set_yticks(np.arange(len(ids)) + 0.5, names, fontsize=6.5)
    axes.set_xticks([])
    axes.tick_params(length=0, colors=INK, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Share of mutations seen in either that both have", fontsize=7, color=SOFT, loc="left", pad=3)


def _boundaries(mutations: list[dict[str, Any]]) -> list[float]:
    clones = [row["clone"] for row in mutations]
    return [place - 0.5 for place in range(1, len(clones)) if clones[place] != clones[place - 1]]


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
