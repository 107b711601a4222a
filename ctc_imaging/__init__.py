"""Circulating tumour cells, from the slide scan to the risk of recurrence."""

__version__ = "0.1.0"
