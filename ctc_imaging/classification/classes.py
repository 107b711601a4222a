"""The words a call is made of."""

from __future__ import annotations

CLASSES = ("ctc", "leukocyte", "artefact")
"""In the order of the network's outputs."""

INDETERMINATE = "indeterminate"
CALLS = (*CLASSES, INDETERMINATE)
PHENOTYPES = ("epithelial", "hybrid", "mesenchymal", "undetermined")
CANDIDATES = ("ctc", INDETERMINATE)
"""Calls that a person should look at."""
