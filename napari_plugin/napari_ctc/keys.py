"""The keys of a review: calls, reasons, moves and corrections, and what each is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Key(NamedTuple):
    """A key, what its button says, and what it does; `sign` is written for a key whose name is a word."""

    key: str
    label: str
    action: Callable[[], object]
    colour: str = ""
    sign: str = ""


# Key, what its button says, call, phenotype.
CALLS = (
    ("E", "CTC epithelial", "ctc", "epithelial"),
    ("H", "CTC hybrid", "ctc", "hybrid"),
    ("M", "CTC mesenchymal", "ctc", "mesenchymal"),
    ("C", "CTC", "ctc", ""),
    ("L", "leukocyte", "leukocyte", ""),
    ("A", "artefact", "artefact", ""),
    ("U", "unsure", "indeterminate", ""),
)
REASONS = (
    ("1", "CD45 positive"),
    ("2", "no nucleus"),
    ("3", "marker too weak"),
    ("4", "dye, debris or fibre"),
    ("5", "out of focus"),
    ("6", "part of another cell"),
    ("7", "looks like a leukocyte"),
)
"""Why a CTC of the model is none."""
