"""The report: one self-contained page for the technician, the pathologist and the clinic."""

from __future__ import annotations

from ctc_imaging.report.page import write_report

__all__ = ["write_report"]
