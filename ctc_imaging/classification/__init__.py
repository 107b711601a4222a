"""Crops at a fixed physical scale → calibrated class probabilities, phenotype, calls."""

from ctc_imaging.classification.calling import call_cells, write_crops, write_far_view
from ctc_imaging.classification.classes import CALLS, CANDIDATES, CLASSES, INDETERMINATE, PHENOTYPES
from ctc_imaging.classification.crops import CropBatch, iterate_crops
from ctc_imaging.classification.model import Classifier, list_models, load_model, read_model

__all__ = [
    "CALLS",
    "CANDIDATES",
    "CLASSES",
    "INDETERMINATE",
    "PHENOTYPES",
    "Classifier",
    "CropBatch",
    "call_cells",
    "iterate_crops",
    "list_models",
    "load_model",
    "read_model",
    "write_crops",
    "write_far_view",
]
