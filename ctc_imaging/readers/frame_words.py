"""How a description of fields is refused: the word that isn't known, and the one that was probably meant."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Iterable


def unknown(where: str, word: str, kind: str, known: Iterable[str]) -> SlideError:
    """Make the error for a word that isn't known.

    Parameters
    ----------
    where : str
        File and key.
    word : str
        The word.
    kind : str
        What it should be, for example ``key``.
    known : iterable of str
        The words that are.

    Returns
    -------
    SlideError
    """
    folded = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in known}
    hits = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", word.lower()), folded, n=1, cutoff=0.6)
    remedy = f"did you mean {folded[hits[0]]}?" if hits else f"use one of {', '.join(folded.values())}"
    return SlideError(where, f"the {kind} {word} isn't known", remedy)
