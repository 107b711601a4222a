"""Names of files and anchors for patients and samples, whatever stands in their ids."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

_LONGEST = 80
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def page_names(ids: Iterable[str]) -> dict[str, str]:
    """Give every id a name that any file system and any address takes as it is.

    Parameters
    ----------
    ids : iterable of str
        Of one kind, as they stand in the tables.

    Returns
    -------
    dict of str to str
        Letters, digits, ``.``, ``_`` and ``-``. An id that had to be changed, or that differs from another only in
        capitals, carries the first 8 digits of its SHA-256, so that no two share a name.

    Examples
    --------
    >>> page_names(["P001", "../x"])
    {'P001': 'P001', '../x': 'x-d6b96a97'}
    """
    known = list(dict.fromkeys(str(one) for one in ids))
    taken = Counter(one.casefold() for one in known)
    return {one: _name(one, alone=taken[one.casefold()] == 1) for one in known}


def _name(text: str, alone: bool) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:_LONGEST].rstrip(".-")
    if plain and plain == text and alone and not _RESERVED.fullmatch(plain):
        return plain
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{mark}" if plain and not _RESERVED.fullmatch(plain) else f"id-{mark}"
