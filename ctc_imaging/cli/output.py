"""What the commands write: results to standard output, everything else to standard error, each in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def result(value: Mapping[str, Any], lines: str, as_json: bool) -> None:
    """Write a command's result: one JSON object, or lines for a person."""
    text = json.dumps(value, ensure_ascii=False, default=str) if as_json else lines
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Tell the user something beside the result."""
    _tell(f"note: {message}")


def fail(message: str, code: int) -> int:
    """Tell the user what went wrong, and return the exit code."""
    _tell(f"error: {message}")
    return code


def _tell(message: str) -> None:
    sys.stderr.write(f"ctc-imaging: {' '.join(message.split())}\n")
    sys.stderr.flush()
