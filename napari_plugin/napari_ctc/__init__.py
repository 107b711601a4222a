"""The pathologist's review of calls, in napari."""
