"""Published cut-offs by name, each for its own blood volume and assay, and whether one may be used on given samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import ConfigError
from ctc_imaging.panel import CutOff
from ctc_imaging.yaml_text import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = "cutoffs.yaml"
FITS, MARKED, REFUSED = "fits", "marked", "refused"


@dataclass(frozen=True)
class PublishedCutOff:
    """A cut-off as its source states it; `volume_ml` or `assay` is None where the source, as read, doesn't."""

    name: str
    ctc: int
    volume_ml: float | None
    assay: str | None
    source: str
    use: str


@dataclass(frozen=True)
class Verdict:
    """Whether a cut-off may be used: `fits`, `marked` (used, with the reason shown beside it) or `refused`."""

    verdict: str
    reason: str


@cache
def published_cutoffs() -> tuple[PublishedCutOff, ...]:
    """Return the published cut-offs that come with the package.

    Returns
    -------
    tuple of PublishedCutOff
    """
    text = (resources.files("ctc_imaging.recurrence") / _FILE).read_text(encoding="utf-8")
    return tuple(PublishedCutOff(**entry) for entry in parse_yaml(text))


def published_cutoff(name: str) -> PublishedCutOff:
    """Return one published cut-off.

    Parameters
    ----------
    name : str
        Such as ``yu-2018``.

    Returns
    -------
    PublishedCutOff

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    for cutoff in published_cutoffs():
        if cutoff.name == name:
            return cutoff
    known = ", ".join(cutoff.name for cutoff in published_cutoffs())
    raise ConfigError(name, "no published cut-off has this name", f"use one of {known}")


def judge(cutoff: PublishedCutOff, volumes_ml: Sequence[float], assay: str | None) -> Verdict:
    """Say whether a published cut-off may be used on samples.

    Parameters
    ----------
    cutoff : PublishedCutOff
    volumes_ml : sequence of float
        Blood volumes of the samples.
    assay : str or None
        Their assay; None if it isn't known.

    Returns
    -------
    Verdict
        Refused where volume or assay differ, or the source states no volume; marked where either side's assay
        isn't known, or only some of the samples have the volume.
    """
    if cutoff.volume_ml is None:
        return Verdict(REFUSED, f"{cutoff.source} doesn't state the blood volume in what we read")
    same = np.isclose(np.asarray(volumes_ml, dtype=float), cutoff.volume_ml)
    if not same.any():
        return Verdict(REFUSED, f"it holds for {cutoff.volume_ml:g} mL of blood, and no sample is of that volume")
    if cutoff.assay and assay and cutoff.assay.casefold() != assay.casefold():
        return Verdict(REFUSED, f"it holds for {cutoff.assay}, and the samples are of {assay}")
    reasons = []
    if not cutoff.assay:
        reasons.append(f"{cutoff.source} doesn't state the assay in what we read")
    elif not assay:
        reasons.append(f"it holds for {cutoff.assay}, and the samples' assay isn't known")
    if not same.all():
        reasons.append(f"{int((~same).sum())} sample(s) of another volume than {cutoff.volume_ml:g} mL get no status")
    return Verdict(MARKED, "; ".join(reasons)) if reasons else Verdict(FITS, "")


def usable_cutoff(name: str, volumes_ml: Sequence[float], assay: str | None) -> tuple[CutOff, str]:
    """Take a published cut-off for given samples.

    Parameters
    ----------
    name : str
        Its name.
    volumes_ml, assay
        As of `judge`.

    Returns
    -------
    cutoff : CutOff
        As a panel has it.
    mark : str
        What must stand beside every figure made with it; empty where it fits.

    Raises
    ------
    ConfigError
        If there is no such cut-off, or it is refused.
    """
    published = published_cutoff(name)
    verdict = judge(published, volumes_ml, assay)
    if verdict.verdict == REFUSED or published.volume_ml is None:
        raise ConfigError(f"cut-off {name}", verdict.reason, "use another cut-off, or one of your own in the panel")
    stated = published.assay or "assay not stated"
    return CutOff(published.ctc, float(published.volume_ml), stated, published.source), verdict.reason


def cutoff_table(volumes_ml: Sequence[float], assay: str | None) -> pd.DataFrame:
    """List the published cut-offs with what speaks against each.

    Parameters
    ----------
    volumes_ml, assay
        As of `judge`.

    Returns
    -------
    DataFrame
        `name`, `ctc`, `volume_ml`, `assay`, `source`, `use`, `verdict`, `reason`.
    """
    rows = [{**vars(cutoff), **vars(judge(cutoff, volumes_ml, assay))} for cutoff in published_cutoffs()]
    return pd.DataFrame(rows)
