"""RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017): train, measure, deploy.

    import retinanet
    detector = retinanet.load("runs/mine")
    found = detector.predict("picture.jpg")
    found.boxes, found.scores, found.names

Importing this package imports nothing heavy; what a name needs is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retinanet.config import Settings as Settings
    from retinanet.detections import Detections as Detections
    from retinanet.detector import Detector as Detector
    from retinanet.detector import load as load
    from retinanet.model.retinanet import RetinaNet as RetinaNet

_HOMES = {
    "Detections": "retinanet.detections",
    "Detector": "retinanet.detector",
    "RetinaNet": "retinanet.model.retinanet",
    "Settings": "retinanet.config",
    "load": "retinanet.detector",
}

__all__ = ["Detections", "Detector", "RetinaNet", "Settings", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'retinanet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
