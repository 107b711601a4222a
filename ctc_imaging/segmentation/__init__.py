"""From pixels to outlines: background, nuclei, cells, tile by tile and equal to untiled."""

from ctc_imaging.segmentation.background import Background, measure_background
from ctc_imaging.segmentation.image import segment_nuclei
from ctc_imaging.segmentation.tiled import segment_slide

__all__ = ["Background", "measure_background", "segment_nuclei", "segment_slide"]
