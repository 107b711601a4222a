"""Build hook: put models/ into wheels, but not into editable installs, which find them in the checkout."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ModelsHook(BuildHookInterface):
    """Add the shipped weights to a wheel as ctc_imaging/_models."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling with version "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"]["models"] = "ctc_imaging/_models"
