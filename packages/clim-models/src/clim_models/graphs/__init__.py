"""Graphs for other runtimes: the dense map and named boxes of a model, as torch.export and ONNX.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.graphs.c4_detector import C4Graph as C4Graph
    from clim_models.graphs.detector import DetectorGraph as DetectorGraph
    from clim_models.graphs.detector_files import (
        export_detector as export_detector,
        suppress_boxes as suppress_boxes,
    )
    from clim_models.graphs.modules import BoxGraph as BoxGraph, DenseGraph as DenseGraph
    from clim_models.graphs.writing import (
        GraphReport as GraphReport,
        export_graphs as export_graphs,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BoxGraph": "clim_models.graphs.modules",
            "C4Graph": "clim_models.graphs.c4_detector",
            "DenseGraph": "clim_models.graphs.modules",
            "DetectorGraph": "clim_models.graphs.detector",
            "GraphReport": "clim_models.graphs.writing",
            "export_detector": "clim_models.graphs.detector_files",
            "export_graphs": "clim_models.graphs.writing",
            "suppress_boxes": "clim_models.graphs.detector_files",
        },
    )
