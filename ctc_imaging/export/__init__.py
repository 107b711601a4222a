"""Calls and outlines of a run for other programs: QuPath, AnnData, SpatialData, and plates for a paper."""

from ctc_imaging.export.anndata_table import anndata_of, write_h5ad
from ctc_imaging.export.cells import CALL_COLOURS, SlideCells, read_slides
from ctc_imaging.export.geojson import write_geojson
from ctc_imaging.export.plate import Plate, write_plate
from ctc_imaging.export.spatial import write_spatialdata

__all__ = [
    "CALL_COLOURS",
    "Plate",
    "SlideCells",
    "anndata_of",
    "read_slides",
    "write_geojson",
    "write_h5ad",
    "write_plate",
    "write_spatialdata",
]
