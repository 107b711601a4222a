"""YAML as people write it for us: plain values, lists and mappings, and one kind of error for all else."""

from __future__ import annotations

from typing import Any

import yaml

# For values like !!int x or 2024-02-30, and for deep nesting, PyYAML lets through what Python raises.
_OF_VALUES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class _Loader(yaml.SafeLoader):
    """Reads no aliases: nobody needs them here, and a few lines of them can stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) can't be used here")
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Parameters
    ----------
    text : str

    Returns
    -------
    object
        None, a plain value, a list or a dict.

    Raises
    ------
    ValueError
        Whatever is wrong with the text; the message says it in one line.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, *_OF_VALUES) as error:
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
