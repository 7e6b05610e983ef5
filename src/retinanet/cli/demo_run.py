"""The demonstration: digit scenes, a small detector trained on them, measured, its findings drawn.

Nothing of it is special: the scenes are written as a COCO data set, and training, measuring and drawing are what
``retinanet train``, ``evaluate`` and ``predict`` do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.common.atomic_files import require_new
from retinanet.config import recipes
from retinanet.data import digits
from retinanet.training.callbacks import Callback

RECIPE = "digits"
THRESHOLD = 0.4  # of the detections that are drawn
SCENES: dict[str, Any] = {"train": 1200, "val": 100, "digits": (3, 7)}

Count = Callable[[int, int], None]


@dataclass(frozen=True)
class Demo:
    """Where everything lies, and how well the detector does on scenes of digits that it never saw."""

    scenes: Path
    run: Path
    predictions: Path
    summary: dict[str, Any]
    """What :func:`retinanet.training.trainer.train` returned."""
    per_class: list[dict[str, Any]]
    """name, AP, AP50 and boxes of each class."""


def demo(
    folder: Path,
    budget: str,
    *,
    scenes: dict[str, Any] | None = None,
    on_scene: Count | None = None,
    callbacks: Sequence[Callback] = (),
    on_image: Count | None = None,
) -> Demo:
    """Make scenes, train on them for ``budget`` (such as "3m"), measure and draw.

    Args:
        folder: new or empty; gets ``scenes/``, ``run/`` and ``predictions/``.
        budget: wall-clock time of the training, its final evaluation included.
        scenes: how many to make and of what kind, see :func:`retinanet.data.digits.write`.
        on_scene, on_image: called with (done, in all) while scenes are made and predictions drawn.
        callbacks: of the training, see :mod:`retinanet.training.callbacks`.

    Raises:
        RequestError: the folder holds something, or scikit-learn is not installed.
    """
    require_new(folder, "with --output")
    settings = recipes.load(RECIPE, {"train": {"budget": budget}})
    data = digits.write(folder / "scenes", **(scenes or SCENES), on_scene=on_scene)

    from retinanet import api
    from retinanet.predict.files import predict_files
    from retinanet.predict.predictor import Callbacks
    from retinanet.training.trainer import train

    summary = train(data, settings, folder / "run", callbacks=callbacks)
    measured = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
    detector = api.load(folder / "run")
    drawing = Callbacks(on_images=on_image) if on_image else None
    predict_files(detector, [data / "val"], folder / "predictions", threshold=THRESHOLD, callbacks=drawing)
    return Demo(data, folder / "run", folder / "predictions", summary, measured["per_class"])
