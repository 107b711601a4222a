"""Panels: which channel of a slide carries which marker, and the rules read with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from ctc_imaging.errors import PanelError
from ctc_imaging.files import sha256_json
from ctc_imaging.yaml_text import parse_yaml


class Role(StrEnum):
    """What a marker says about a cell."""

    NUCLEUS = "nucleus"
    EPITHELIAL = "epithelial"
    MESENCHYMAL = "mesenchymal"
    LEUKOCYTE = "leukocyte"
    TUMOUR = "tumour"
    AUTOFLUORESCENCE = "autofluorescence"


@dataclass(frozen=True)
class Channel:
    """One stain of a panel.

    `short` names its columns in the tables (``ck_mean``), `aliases` are the names scanners
    give it, `position` is its place on slides whose channels have no names.
    """

    short: str
    role: Role
    colour: str
    aliases: tuple[str, ...]
    position: int


@dataclass(frozen=True)
class CutOff:
    """CTCs from which a sample is positive: valid for its own volume and assay only."""

    ctc: int
    volume_ml: float
    assay: str
    source: str


@dataclass(frozen=True)
class ClusterRule:
    """Cells belong to one cluster when their outlines are at most `max_gap_um` apart."""

    name: str
    min_ctc: int
    max_gap_um: float


@dataclass(frozen=True)
class Panel:
    """The stains of an assay, its cut-off and its cluster rule."""

    name: str
    channels: tuple[Channel, ...]
    cutoff: CutOff | None
    clusters: ClusterRule
    mesenchymal_needs_tumour_marker: bool

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the panel, as hex."""
        return sha256_json(asdict(self))

    @property
    def shorts(self) -> tuple[str, ...]:
        """The channels' short names, in panel order."""
        return tuple(channel.short for channel in self.channels)

    def channel(self, role: Role) -> Channel | None:
        """Return the first channel with this role, or None."""
        return next((channel for channel in self.channels if channel.role == role), None)

    def assign(self, names: Sequence[str | None], where: str | Path) -> dict[str, int]:
        """Find the panel's channels on a slide.

        Parameters
        ----------
        names : sequence of str or None
            The slide's channel names; all None where the file gives none.
        where : str or Path
            The slide, for the error message.

        Returns
        -------
        dict of str to int
            Short name to the index of the slide's channel, in panel order.

        Raises
        ------
        PanelError
            If a channel is missing or two channels match one marker.
        """
        if all(name is None for name in names):
            return self._assign_by_position(len(names), where)
        return {channel.short: self._find(channel, names, where) for channel in self.channels}

    def _assign_by_position(self, count: int, where: str | Path) -> dict[str, int]:
        if any(channel.position >= count for channel in self.channels):
            raise PanelError(
                where,
                f"{count} unnamed channel(s), panel {self.name} needs {len(self.channels)}",
                "choose the panel of this scan with --panel",
            )
        return {channel.short: channel.position for channel in self.channels}

    def _find(self, channel: Channel, names: Sequence[str | None], where: str | Path) -> int:
        wanted = {_plain(alias) for alias in (channel.short, *channel.aliases)}
        hits = [index for index, name in enumerate(names) if name and _plain(name) in wanted]
        if len(hits) == 1:
            return hits[0]
        fault = "no channel" if not hits else "more than one channel"
        listed = ", ".join(str(name) for name in names)
        raise PanelError(
            where,
            f"{fault} is {channel.short} ({channel.role}) of panel {self.name} among: {listed}",
            "choose another panel with --panel or add the channel's name to its aliases",
        )


def shipped_panels() -> list[str]:
    """Names of the panels that come with the package."""
    folder = resources.files("ctc_imaging") / "panels"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_panel(name: str | Path) -> Panel:
    """Load a shipped panel by name, or a laboratory's own from a YAML file.

    Parameters
    ----------
    name : str or Path
        A name such as ``emt-4``, or the path of a YAML file.

    Returns
    -------
    Panel

    Raises
    ------
    PanelError
        If there is no such panel, or the file is malformed.
    """
    if str(name) in shipped_panels():
        text = (resources.files("ctc_imaging") / "panels" / f"{name}.yaml").read_text(encoding="utf-8")
        return parse_panel(text, str(name))
    path = Path(name)
    if not path.is_file():
        raise PanelError(name, "no such panel", f"use a YAML file or one of {', '.join(shipped_panels())}")
    try:
        return parse_panel(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise PanelError(path, "not UTF-8 text", "save the panel as UTF-8 YAML") from error


def parse_panel(text: str, where: str | Path) -> Panel:
    """Parse a panel's YAML text.

    Raises
    ------
    PanelError
        If a key is missing, unknown or has a value without meaning.
    """
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise PanelError(where, f"not YAML ({error})", "compare it with docs/panels.md") from error
    try:
        panel = _build(raw)
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PanelError(where, f"panel is malformed ({error!r})", "compare it with docs/panels.md") from error
    _check(panel, where)
    return panel


def _build(raw: dict[str, Any]) -> Panel:
    channels = tuple(
        Channel(
            short=str(entry["short"]),
            role=Role(entry["role"]),
            colour=str(entry["colour"]),
            aliases=tuple(str(alias) for alias in entry.get("aliases", ())),
            position=int(entry.get("position", position)),
        )
        for position, entry in enumerate(raw["channels"])
    )
    cutoff = raw.get("cutoff")
    return Panel(
        name=str(raw["name"]),
        channels=channels,
        cutoff=None if cutoff is None else CutOff(**{**cutoff, "volume_ml": float(cutoff["volume_ml"])}),
        clusters=ClusterRule(**{**raw["clusters"], "max_gap_um": float(raw["clusters"]["max_gap_um"])}),
        mesenchymal_needs_tumour_marker=bool(raw.get("mesenchymal_needs_tumour_marker", False)),
    )


def _check(panel: Panel, where: str | Path) -> None:
    shorts = panel.shorts
    roles = [channel.role for channel in panel.channels]
    if len(set(shorts)) != len(shorts):
        raise PanelError(where, "two channels share one short name", "give each channel its own")
    if any(not re.fullmatch(r"[a-z][a-z0-9]*", short) for short in shorts):
        raise PanelError(where, "a short name isn't lower-case letters and digits", "rename it, for example ck")
    if any(not re.fullmatch(r"#[0-9a-fA-F]{6}", channel.colour) for channel in panel.channels):
        raise PanelError(where, "a colour isn't #rrggbb", "write it like '#00ff00'")
    if any(channel.position < 0 for channel in panel.channels):
        raise PanelError(where, "a channel's position is negative", "count channels from 0")
    if roles.count(Role.NUCLEUS) != 1:
        raise PanelError(where, "a panel has exactly one nucleus channel", "give one channel the role nucleus")


def _plain(name: str) -> str:
    """Fold a channel name so that 'CD-45' and 'cd45' are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
