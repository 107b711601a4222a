"""What the reader sees in a slide: the facts behind ``ctc-imaging inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import PanelError
from ctc_imaging.quality import assess
from ctc_imaging.slide import Slide, open_slide
from ctc_imaging.staining import find_swap

if TYPE_CHECKING:
    from pathlib import Path

    from ctc_imaging.panel import Panel


def inspect_slide(path: str | Path, panel: Panel, pixel_size_um: float | None = None) -> dict[str, Any]:
    """Tell everything a technician needs to know before running a slide.

    Parameters
    ----------
    path : str or Path
        A slide.
    panel : Panel
        The panel it should fit.
    pixel_size_um : float, optional
        Side of a pixel in µm, for files that don't tell.

    Returns
    -------
    dict
        A JSON object. ``roles`` (short name to channel and role) and ``quality`` (without its maps) are None where
        the panel doesn't fit the slide, and ``panel_error`` then says why.

    Raises
    ------
    SlideError
        If the slide can't be read.
    """
    with open_slide(path, pixel_size_um) as slide:
        facts = _facts(slide, panel)
        try:
            channels = panel.assign(slide.channel_names, slide.path)
        except PanelError as error:
            return facts | {"roles": None, "panel_error": f"{error.fault}; {error.remedy}", "quality": None}
        roles = {channel.short: channel.role.value for channel in panel.channels}
        quality = assess(slide, channels, panel)
        swap = quality.overlap and find_swap(quality.overlap, panel, mostly_leukocytes=True)
        if swap:
            facts["warnings"].append(f"channels {swap[0]} and {swap[1]} may be swapped: {swap[2]}")
        return facts | {
            "roles": {short: {"channel": index, "role": roles[short]} for short, index in channels.items()},
            "panel_error": None,
            "quality": quality.to_json(maps=False),
        }


def _facts(slide: Slide, panel: Panel) -> dict[str, Any]:
    named = any(name is not None for name in slide.channel_names)
    warnings = list(slide.warnings)
    if slide.pixel_size_um is None:
        warnings.append("the file doesn't tell its pixel size: give pixel_size_um")
    if not named:
        warnings.append(f"the channels have no names: they are taken in the order of panel {panel.name}")
    if not named and slide.shape[0] > len(panel.channels):
        warnings.append(f"{slide.shape[0]} unnamed channels, of which panel {panel.name} uses {len(panel.channels)}")
    return {
        "file": str(slide.path),
        "reader": slide.reader,
        "axes": "CYX",
        "shape": list(slide.shape),
        "dtype": slide.dtype.name,
        "pixel_size_um": slide.pixel_size_um,
        "chunk_shape_px": list(slide.chunk_shape_px),
        "channel_names": list(slide.channel_names),
        "panel": panel.name,
        "warnings": warnings,
    }
