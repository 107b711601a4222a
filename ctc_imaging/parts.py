"""Parts of one slide's work: done here one after the other, or wherever the process that works on the slide says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MapParts = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function on each item and yields the results in their order, like the builtin `map`."""

_map_parts: ContextVar[MapParts] = ContextVar("map_parts", default=map)


def current_map() -> MapParts:
    """Return what shall do a slide's parts: the builtin `map`, or what `mapping_by` has set."""
    return _map_parts.get()


@contextmanager
def mapping_by(map_parts: MapParts) -> Iterator[None]:
    """Have another function do the parts for the length of a block, in this thread only."""
    token = _map_parts.set(map_parts)
    try:
        yield
    finally:
        _map_parts.reset(token)
