"""DeepForest's detectors of trees, birds and livestock: torchvision's first RetinaNet with labels and thresholds.

On the hub they are a safetensors file with a config.json beside it; its trainer writes Lightning checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from retinanet.common.errors import RequestError
from retinanet.config.model_settings import ModelSettings

DEFAULTS = {"score_thresh": 0.1, "nms_thresh": 0.05, "detections_per_img": 300, "topk_candidates": 1000}
"""Of the configuration that comes with DeepForest 2."""
SIZES = {"min_size": 800, "max_size": 1333}


class DeepForest(NamedTuple):
    """The values about the model in a file, by DeepForest's names."""

    names: tuple[str, ...]
    values: dict[str, Any]
    eps: float
    """The eps of its batch normalisation."""

    @property
    def assumed(self) -> list[str]:
        missing = {name: value for name, value in DEFAULTS.items() if name not in self.values}
        if not missing:
            return []
        return [", ".join(f"{name} {value:g}" for name, value in missing.items()) + ": DeepForest's defaults"]

    def applied(self, model: ModelSettings) -> ModelSettings:
        """``model`` with its sizes and thresholds.

        Raises:
            RequestError: one of them is out of its range.
        """
        values = DEFAULTS | SIZES | self.values
        return replace(
            model,
            preprocessing=replace(model.preprocessing, size=int(values["min_size"]), longer=int(values["max_size"])),
            postprocessing=replace(
                model.postprocessing,
                threshold=float(values["score_thresh"]),
                nms_iou=float(values["nms_thresh"]),
                max_detections=int(values["detections_per_img"]),
                candidates=int(values["topk_candidates"]),
            ),
        )


def recognise(about: Mapping[str, Any], count: int) -> DeepForest | None:
    """The values beside the weights of a model of ``count`` classes; None where they are not DeepForest's.

    Raises:
        RequestError: they are, but a threshold or size is not a number.
    """
    trained = about.get("hyper_parameters")
    trained = trained if isinstance(trained, dict) else {}
    config = trained.get("config")
    config = config if isinstance(config, dict) else {}
    beside = about.get("config")
    mappings: list[Mapping[str, Any]] = [about, config, trained, beside if isinstance(beside, dict) else {}]
    names = next((names for mapping in mappings if (names := _names(mapping.get("label_dict"), count))), None)
    if names is None:
        return None
    values: dict[str, Any] = {}
    older = config.get("retinanet") or trained.get("retinanet")  # had the score's threshold before DeepForest 2
    for mapping in (older if isinstance(older, dict) else {}, *mappings[1:]):
        for name in DEFAULTS | SIZES:
            value = mapping.get(name)
            value = value[-1] if isinstance(value, list) and value else value  # min_size can be a choice for training
            if value is None or name in values:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RequestError(f"the checkpoint's {name} is {value!r}, not a number: correct its config.json")
            values[name] = value
    # Its class makes the network from ImageNet's weights, and from torchvision's COCO weights where no model is named.
    model = config.get("model")
    from_coco = bool(trained) and not (isinstance(model, dict) and model.get("name"))
    return DeepForest(names, values, 0.0 if from_coco else 1e-5)


def _names(labels: Any, count: int) -> tuple[str, ...] | None:
    """The names by their numbers, where these are 0 to ``count`` - 1."""
    if not isinstance(labels, dict) or not all(isinstance(label, int) for label in labels.values()):
        return None
    names = {label: str(name) for name, label in labels.items()}
    return tuple(names[label] for label in range(count)) if names.keys() == set(range(count)) else None
