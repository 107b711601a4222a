"""The pages beside the report: of the batch for the technician, of samples, patients and the cohort."""

from __future__ import annotations

from ctc_imaging.report.pages.writing import Links, links_of, write_pages

__all__ = ["Links", "links_of", "write_pages"]
