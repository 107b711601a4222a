"""What libraries log while they open a slide, kept out of the program's own log: it may quote a patient's name."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Collector(logging.Handler):
    """Keeps the log records of the thread that made it: another may be opening another slide."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.records.append(record)


@contextmanager
def collected_log(library: str) -> Iterator[list[logging.LogRecord]]:
    """Collect a library's warnings and errors.

    Parameters
    ----------
    library : str
        Name of its logger.

    Yields
    ------
    list of logging.LogRecord
        Filled while the block runs.
    """
    handler = _Collector()
    logger = logging.getLogger(library)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
