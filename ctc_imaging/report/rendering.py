"""The templates' surroundings: filters, words, and the inlined style and script with its fingerprint."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ctc_imaging.report.words import interval, label, marker, number, plural

HERE = Path(__file__).parent


@cache
def environment() -> jinja2.Environment:
    """Make the surroundings that all pages are rendered in; a name that isn't known is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(marker=marker, number=number, interval=interval, label=label, svg=Markup)
    made.globals.update(plural=plural)
    return made


def style() -> Markup:
    """The style sheet of all pages, for screen and print."""
    return Markup((HERE / "style.css").read_text(encoding="utf-8"))


def script() -> tuple[Markup, str]:
    """The pages' only script, which sorts tables, and its SHA-256 for the page's content security policy."""
    text = (HERE / "sort.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Markup(text), f"sha256-{digest}"
