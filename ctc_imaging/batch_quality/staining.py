"""Each slide's stains against its batch: how strong they are, and how dark and quiet the ground between cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr

from ctc_imaging.batch_quality.batches import batch_names
from ctc_imaging.cohort import SlideEntry
from ctc_imaging.counting import counted_cells
from ctc_imaging.panel import Panel, Role
from ctc_imaging.positivity import positive_from
from ctc_imaging.quality import MIN_STAIN_SNR

# In the RUN folder: one row a slide and channel.
STAINS_CSV = "stains.csv"
STAIN_COLUMNS = (
    *("slide_id", "sample_id", "sample_kind", "sample_date", "site", "batch", "panel", "channel", "role"),
    *("leukocytes", "leukocyte_snr", "ctc", "ctc_snr", "background", "noise", "positive_from_snr"),
)
FIGURES = ("strength", "background", "noise")

# With fewer slides beside it nobody can say which of them is the odd one.
MIN_SLIDES = 5
# Half or double is what an eye sees at once. The median over the leukocytes of simulated slides of one setting
# differs by a tenth, and its setting weak-stain is at 0.4.
MIN_RATIO = 2.0
# Two-sided: the three standard deviations of a control chart (Levey and Jennings, Am J Clin Pathol 1950;20:1059-66).
FALSE_ALARMS = 0.0027
# Medians of fewer cells are a lottery.
MIN_LEUKOCYTES = 20
MIN_CTC = 5
# A tenth of the noise: a stain that is not there has no ratio.
_LEAST_SNR = 0.1
# Controls with cells of one line, the same every time; how patients' CTCs stain is the tumour's own.
_CELL_LINES = ("spiked", "stain_control")


def stain_rows(
    entry: SlideEntry, cells: pd.DataFrame, quality: Mapping[str, Any], panel: Panel
) -> list[dict[str, Any]]:
    """Measure the stains of one slide.

    Parameters
    ----------
    entry : SlideEntry
        The slide as the cohort table has it.
    cells : DataFrame
        Columns of cells.parquet with final `call`.
    quality : mapping
        The slide's quality.json.
    panel : Panel
        The slide's own.

    Returns
    -------
    list of dict
        `STAIN_COLUMNS` for each channel: the median `CHANNEL_snr` of the cells called leukocyte and CTC (missing
        for fewer than 20 and 5 of them), background and noise in grey levels, and for markers that make a phenotype the
        SNR from which a cell of this slide is positive. Empty where the slide isn't assessable,
        which has its own reasons.
    """
    if not quality["assessable"]:
        return []
    positive = positive_from(cells, panel)
    counted = cells[counted_cells(cells)]
    called = {name: counted[counted["call"] == name] for name in ("leukocyte", "ctc")}
    return [
        {
            "slide_id": entry.slide_id,
            "sample_id": entry.sample_id,
            "sample_kind": entry.sample_kind,
            "sample_date": entry.sample_date.isoformat(),
            "site": entry.site or "",
            "batch": entry.batch or "",
            "panel": panel.name,
            "channel": channel.short,
            "role": str(channel.role),
            "leukocytes": len(called["leukocyte"]),
            "leukocyte_snr": _median(called["leukocyte"], channel.short, MIN_LEUKOCYTES),
            "ctc": len(called["ctc"]),
            "ctc_snr": _median(called["ctc"], channel.short, MIN_CTC),
            "background": quality["channels"][channel.short]["background"],
            "noise": quality["channels"][channel.short]["noise"],
            "positive_from_snr": positive.get(channel.short, np.nan),
        }
        for channel in panel.channels
        if channel.short in quality.get("channels", {}) and f"{channel.short}_snr" in cells
    ]


def _median(cells: pd.DataFrame, short: str, least: int) -> float:
    return float(cells[f"{short}_snr"].median()) if len(cells) >= least else np.nan


def stain_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put rows of `stain_rows` into a table with `STAIN_COLUMNS`."""
    return pd.DataFrame(list(rows), columns=list(STAIN_COLUMNS))


def stain_figures(stains: pd.DataFrame) -> pd.DataFrame:
    """Line up what is compared: a stain's strength, background and noise on every slide, each with its peers.

    Strength is measured on leukocytes where they carry the stain: the nuclear and the leukocyte stain, and others
    whose SNR on leukocytes has a median of at least 3 over the slides. A stain that only CTCs carry has a strength
    on controls of one cell line (spiked, stain control) alone, which are compared with their kind: on patients'
    slides the CTCs' own biology would be read as staining.

    Parameters
    ----------
    stains : DataFrame
        `STAIN_COLUMNS`.

    Returns
    -------
    DataFrame
        `STAIN_COLUMNS`, `figure` (strength, background, noise), `log_value` (natural logarithm), `carrier`
        (leukocytes or CTCs), `batch_name`, `peers` (the batch's name, or the kind of control) and `pool` (slides
        of one panel and site). Figures that couldn't be measured are left out.
    """
    table = stains.assign(batch_name=batch_names(stains), pool=stains["panel"] + "/" + stains["site"])
    on_leukocytes = _carried_by_leukocytes(table)
    own_line = table["sample_kind"].isin(_CELL_LINES)
    snr = table["leukocyte_snr"].where(on_leukocytes, table["ctc_snr"].where(own_line))
    # In units that don't vanish on scanners whose background is 0.
    ground = table["background"].clip(lower=0) + table["noise"]
    values = {"strength": snr.clip(lower=_LEAST_SNR), "background": ground, "noise": table["noise"]}
    parts = [table.assign(figure=figure, log_value=_log(values[figure])) for figure in FIGURES]
    long = pd.concat(parts, ignore_index=True)
    by_kind = (long["figure"] == "strength") & ~pd.concat([on_leukocytes] * len(FIGURES), ignore_index=True)
    kinds = "the other " + long["sample_kind"].str.replace("_", " ") + " slides"
    long = long.assign(carrier=np.where(by_kind, "CTCs", "leukocytes"), peers=long["batch_name"].where(~by_kind, kinds))
    return long[long["log_value"].notna()].reset_index(drop=True)


def _carried_by_leukocytes(table: pd.DataFrame) -> pd.Series:
    typical = table.groupby(["panel", "channel"])["leukocyte_snr"].transform("median")
    return table["role"].isin([Role.NUCLEUS, Role.LEUKOCYTE]) | (typical >= MIN_STAIN_SNR)


def _log(values: pd.Series) -> pd.Series:
    return values.astype(float).where(values > 0).map(np.log)


def stain_remarks(figures: pd.DataFrame) -> pd.DataFrame:
    """Find the slides whose stain stands out from the rest of their batch.

    A figure stands out if it is less than half or more than double the median of its peers, at least four others,
    and farther from it than slides of one batch differ (see `deviations`, p < 0.0027).

    Parameters
    ----------
    figures : DataFrame
        As from `stain_figures`.

    Returns
    -------
    DataFrame
        The rows that stand out, with `ratio`, `p_value` and `text`, a clause for `quality_reasons`.
    """
    keys = ["pool", "channel", "figure", "peers"]
    found = _standing_out(figures, keys, ["pool", "channel", "figure", "carrier"])
    return found.assign(text=[_say(row, _rest(row["peers"])) for row in found.to_dict("records")])


def batch_shifts(figures: pd.DataFrame) -> pd.DataFrame:
    """Find the batches whose median stands out from the other batches of the panel and site, by the same rule.

    Parameters
    ----------
    figures : DataFrame
        As from `stain_figures`.

    Returns
    -------
    DataFrame
        `pool`, `channel`, `figure`, `batch_name`, `ratio`, `p_value` and `text`. Empty for fewer than five batches.
    """
    own = figures[figures["peers"] == figures["batch_name"]]
    keys = ["pool", "channel", "figure"]
    medians = own.groupby([*keys, "batch_name", "carrier"], sort=False)["log_value"].median().reset_index()
    found = _standing_out(medians, keys, keys)
    return found.assign(text=[_say(row, "the other batches", row["batch_name"]) for row in found.to_dict("records")])


def _standing_out(table: pd.DataFrame, peers: list[str], pool: list[str]) -> pd.DataFrame:
    found = table.assign(ratio=np.nan, p_value=np.nan)
    for _, rows in table.groupby(pool, sort=False):
        group = rows.groupby(peers, sort=False).ngroup().to_numpy()
        difference, p_value = deviations(rows["log_value"].to_numpy(dtype=float), group)
        found.loc[rows.index, "ratio"] = np.exp(difference)
        found.loc[rows.index, "p_value"] = p_value
    size = table.groupby(peers, sort=False)["log_value"].transform("size")
    far = np.abs(np.log(found["ratio"])) >= np.log(MIN_RATIO)
    return found[far & (size >= MIN_SLIDES) & (found["p_value"] < FALSE_ALARMS)].reset_index(drop=True)


def deviations(values: NDArray[np.float64], group: NDArray[np.integer]) -> tuple[NDArray, NDArray]:
    """Compare each value with the median of the others of its group, in units of the spread inside all groups.

    The spread is the median difference between two of a group, over all groups: an outlier or two barely move it, and
    small groups borrow from the others. The p-value is Student's, with a degree of freedom for each value beyond the
    first of its group; on normal draws at most 0.0027 of the values fall below 0.0027.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        Logarithms.
    group : ndarray of int, shape (n,)
        Values of one number are compared with one another.

    Returns
    -------
    difference, p_value : ndarray of float, shape (n,)
        NaN for a value that is alone in its group.
    """
    difference, error = np.full(len(values), np.nan), np.full(len(values), np.nan)
    pairs, freedom = [], 0
    for number in np.unique(group):
        at = np.flatnonzero(group == number)
        if at.size < 2:
            continue
        own = values[at]
        difference[at] = own - [np.median(np.delete(own, place)) for place in range(at.size)]
        # The variance of a median of n is that of a value times 1.57 / n.
        error[at] = np.sqrt(1 + 1.57 / (at.size - 1))
        pairs.append(np.abs(np.subtract.outer(own, own)[np.triu_indices(at.size, 1)]))
        freedom += at.size - 1
    if not pairs:
        return difference, error
    # Half of all pairs of normal values differ by less than 0.954 standard deviations.
    error *= np.median(np.concatenate(pairs)) / 0.954
    score = np.divide(np.abs(difference), error, out=np.full(len(values), np.inf), where=error != 0)
    return difference, np.where(np.isnan(difference), np.nan, 2 * stdtr(freedom, -score))


def add_remarks(slides: pd.DataFrame, remarks: pd.DataFrame) -> pd.DataFrame:
    """Add the remarks to the slides' `quality_reasons`; what is assessable stays so.

    Parameters
    ----------
    slides : DataFrame
        Rows of slides.csv.
    remarks : DataFrame
        As from `stain_remarks`.
    """
    texts = remarks.groupby("slide_id")["text"].agg("; ".join)
    added = slides["slide_id"].map(texts).fillna("")
    reasons = slides["quality_reasons"].fillna("").astype(str)
    between = np.where((reasons != "") & (added != ""), "; ", "")
    return slides.assign(quality_reasons=reasons + between + added)


def _rest(peers: str) -> str:
    return peers if peers.startswith("the other") else f"the rest of {peers}"


def _say(row: Mapping[Any, Any], peers: str, batch: str = "") -> str:
    ratio = format(float(format(row["ratio"], ".2g")), "g")
    if row["figure"] == "strength":
        on_ctcs = " on its CTCs" if row["carrier"] == "CTCs" else ""
        return f"{row['channel']}{batch and f' of {batch}'} is {ratio} times as strong{on_ctcs} as in {peers}"
    return f"the {row['figure']} of {row['channel']}{batch and f' in {batch}'} is {ratio} times that of {peers}"
