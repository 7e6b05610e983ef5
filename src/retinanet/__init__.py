"""RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017): train, evaluate, deploy.

    import retinanet
    result = retinanet.train("DATA", budget="15m")
    detector = retinanet.load("runs/data-1")
    detections = detector.predict("image.jpg")
    detections.boxes, detections.scores, detections.names

Importing this package imports nothing heavy. A name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retinanet.common.version import __version__

if TYPE_CHECKING:
    from retinanet.api.evaluation_run import evaluate as evaluate
    from retinanet.api.export_run import export as export
    from retinanet.api.loading import load as load
    from retinanet.api.train_run import TrainResult as TrainResult
    from retinanet.api.train_run import train as train
    from retinanet.config.settings import Settings as Settings
    from retinanet.data import open_data as open_data
    from retinanet.inference.detections import Detections as Detections
    from retinanet.inference.detector import Detector as Detector
    from retinanet.model.retinanet import RetinaNet as RetinaNet

_MODULES = {
    "Detections": "retinanet.inference.detections",
    "Detector": "retinanet.inference.detector",
    "RetinaNet": "retinanet.model.retinanet",
    "Settings": "retinanet.config.settings",
    "TrainResult": "retinanet.api.train_run",
    "evaluate": "retinanet.api.evaluation_run",
    "export": "retinanet.api.export_run",
    "load": "retinanet.api.loading",
    "open_data": "retinanet.data",
    "train": "retinanet.api.train_run",
}

__all__ = [
    "Detections",
    "Detector",
    "RetinaNet",
    "Settings",
    "TrainResult",
    "__version__",
    "evaluate",
    "export",
    "load",
    "open_data",
    "train",
]


if not TYPE_CHECKING:  # a type checker would take any name then, misspelt ones too

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'retinanet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
