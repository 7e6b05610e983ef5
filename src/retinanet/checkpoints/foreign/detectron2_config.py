"""Detectron2's configuration of a model as our settings.

Its checkpoints hold weights alone; its trainer writes the whole configuration as config.yaml into the same folder. A
value that is missing is taken from the model zoo's configurations, and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from retinanet.checkpoints.foreign.detectron_config import Configuration
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.config.convert import dotted
from retinanet.config.model_settings import AnchorSettings, PostprocessingSettings, PreprocessingSettings
from retinanet.weight_files.reader import Contents

FIXED: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.RETINANET.IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False] * 4,
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
}
"""Values that the configuration must have where it has one; nothing else can be built here."""
BASE = "Base-RetinaNet.yaml"
"""The base of the zoo's configurations: its values are those that are assumed here anyway."""
SIZES = tuple(tuple(size * 2 ** (i / 3) for i in range(3)) for size in (32, 64, 128, 256, 512))
LEVELS = len(SIZES)
ZOO: dict[str, tuple[Any, str]] = {
    "INPUT.MIN_SIZE_TEST": (800, "preprocessing.size"),
    "INPUT.MAX_SIZE_TEST": (1333, "preprocessing.longer"),
    "INPUT.FORMAT": ("BGR", "preprocessing.channels"),
    "MODEL.PIXEL_MEAN": ((103.53, 116.28, 123.675), "preprocessing.mean"),
    "MODEL.PIXEL_STD": ((1.0, 1.0, 1.0), "preprocessing.std"),
    "MODEL.RESNETS.STRIDE_IN_1X1": (True, "backbone.stride_in_1x1"),
    "MODEL.ANCHOR_GENERATOR.SIZES": (SIZES, "anchors.sizes"),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ((0.5, 1.0, 2.0), "anchors.ratios"),
    "MODEL.ANCHOR_GENERATOR.OFFSET": (0.0, "anchors.offset"),
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": ((1.0, 1.0, 1.0, 1.0), "head.box_weights"),
    "MODEL.RETINANET.SCORE_THRESH_TEST": (0.05, "postprocessing.threshold"),
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": (1000, "postprocessing.candidates"),
    "MODEL.RETINANET.NMS_THRESH_TEST": (0.5, "postprocessing.nms_iou"),
    "TEST.DETECTIONS_PER_IMAGE": (100, "postprocessing.max_detections"),
}
"""Their setting -> its value in the zoo's configurations of ResNets, and the setting here that it becomes."""
RESNEXT: dict[str, Any] = {"MODEL.PIXEL_STD": (57.375, 57.12, 58.395), "MODEL.RESNETS.STRIDE_IN_1X1": False}
"""The values of a ResNeXt that differ, because it does not start from Microsoft's weights."""


class Meaning(NamedTuple):
    """A configuration as our settings."""

    stride_in_1x1: bool
    anchors: AnchorSettings
    preprocessing: PreprocessingSettings
    postprocessing: PostprocessingSettings
    box_weights: tuple[float, float, float, float]
    assumed: list[str]


class Detectron2Configuration:
    """The configuration beside a checkpoint, with the zoo's values for those that it lacks.

    Args:
        stored: settings that the checkpoint itself holds, by Detectron2's names.
        given: model settings that the user chose; the configuration need not have them.

    Raises:
        RequestError: it cannot be read, or belongs to a model that cannot be built here.
    """

    def __init__(self, contents: Contents, backbone: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        beside, self.path = contents.beside, contents.path
        self.file = Configuration(contents.path if beside is None else beside.path, beside and beside.text)
        self.ignored = beside is not None and not _is_theirs(self.file.values)
        if self.ignored:
            self.file.values = {}
        base = self.file.get("_BASE_", BASE)
        if not isinstance(base, str) or PurePosixPath(base).name != BASE:
            raise RequestError(
                f"{self.file.path} builds on _BASE_ {shown(base)}, which is not read: give the whole configuration, "
                "the config.yaml that Detectron2's trainer writes"
            )
        self.file.require(FIXED)
        resnext = RESNEXT if backbone.startswith("resnext") else {}
        self.defaults = {key: value for key, (value, _) in ZOO.items()} | resnext
        self.stored = stored
        known = {*stored, *(key for key, (_, ours) in ZOO.items() if ours in dotted(given))}
        self.bottlenecks = backbone not in ("resnet18", "resnet34")
        if not self.bottlenecks:  # a basic block has no 1 x 1 convolution
            known.add("MODEL.RESNETS.STRIDE_IN_1X1")
        self.missing = [key for key in ZOO if key not in known and self.file.get(key, None) is None]
        self.channels = dotted(given).get("preprocessing.channels")

    def meaning(self) -> Meaning:
        """The configuration as our settings.

        Raises:
            RequestError: a value cannot be used. SettingsError: it is out of its range.
        """
        file, defaults, generator = self.file, self.defaults, "MODEL.ANCHOR_GENERATOR"
        weights = file.numbers(key := "MODEL.RETINANET.BBOX_REG_WEIGHTS", defaults[key])
        if len(weights) != 4:
            raise RequestError(f"{file.path} has {len(weights)} numbers as {key}, not one each for dx, dy, dw and dh")
        dx, dy, dw, dh = weights
        sizes, scales = _sizes(file, self._rows(f"{generator}.SIZES"))
        ratios = self._rows(f"{generator}.ASPECT_RATIOS")
        if len(set(ratios)) > 1:
            raise RequestError(f"{file.path} has other {generator}.ASPECT_RATIOS for each level: cannot be converted")
        offset = file.number(key := f"{generator}.OFFSET", defaults[key])
        return Meaning(
            stride_in_1x1=self._flag("MODEL.RESNETS.STRIDE_IN_1X1") and self.bottlenecks,
            anchors=AnchorSettings(sizes=sizes, scales=scales, ratios=ratios[0], offset=offset),
            preprocessing=self._preprocessing(),
            postprocessing=PostprocessingSettings(
                threshold=file.number(key := "MODEL.RETINANET.SCORE_THRESH_TEST", defaults[key]),
                candidates=file.whole(key := "MODEL.RETINANET.TOPK_CANDIDATES_TEST", defaults[key]),
                nms_iou=file.number(key := "MODEL.RETINANET.NMS_THRESH_TEST", defaults[key]),
                max_detections=file.whole(key := "TEST.DETECTIONS_PER_IMAGE", defaults[key]),
                clip="after",
                drop_empty=True,
            ),
            box_weights=(dx, dy, dw, dh),
            assumed=self._assumed(),
        )

    def agree(self, key: str, value: int) -> None:
        """Compare a value of the configuration with that of the weights.

        Raises:
            RequestError: they differ.
        """
        configured = self.file.get(key, value)
        if configured != value:
            raise RequestError(
                f"{self.file.path} has {key} {shown(configured)}, but {self.path} has {value}: it belongs to "
                "another model; put the right one beside the checkpoint, or none"
            )

    def _preprocessing(self) -> PreprocessingSettings:
        file, defaults = self.file, self.defaults
        size = file.number(key := "INPUT.MIN_SIZE_TEST", defaults[key])
        longer = file.whole(key := "INPUT.MAX_SIZE_TEST", defaults[key])
        channels = self.channels or file.get(key := "INPUT.FORMAT", defaults[key])
        channels = channels.lower() if isinstance(channels, str) else channels
        if channels not in ("rgb", "bgr"):
            raise RequestError(f"{file.path} has {shown(channels)} as INPUT.FORMAT; only RGB and BGR can be converted")
        colours = []
        for key in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"):
            # Detectron2 computes with the values in the checkpoint, not with those of the configuration.
            values = self.stored[key] if key in self.stored else file.numbers(key, defaults[key])
            least = 0 if key.endswith("STD") else -1
            if len(values) != 3 or not all(least < value < 1e9 for value in values):
                raise RequestError(f"{file.path}: {key} is {list(values)}, not the three numbers of a colour image")
            first, green, last = (value / 255 for value in values)  # in the order of INPUT.FORMAT
            colours.append((first, green, last) if channels == "rgb" else (last, green, first))
        return PreprocessingSettings(
            resize="shorter" if size else "none",  # in Detectron2 0 keeps an image's size
            size=min(file.whole("INPUT.MIN_SIZE_TEST", defaults["INPUT.MIN_SIZE_TEST"]), longer) if size else 800,
            longer=longer,
            rounding="detectron2",
            interpolation="pillow",
            channels="rgb" if channels == "rgb" else "bgr",
            mean=colours[0],
            std=colours[1],
        )

    def _flag(self, key: str) -> bool:
        value = self.file.get(key, self.defaults[key])
        if not isinstance(value, bool):
            raise RequestError(f"{self.file.path} has {shown(value)} as {key}, not true or false")
        return value

    def _rows(self, key: str) -> list[tuple[float, ...]]:
        """Numbers for each level; a single list, or a list of one, is for all of them."""
        value = self.file.get(key, self.defaults[key])
        rows = value if isinstance(value, list | tuple) and value else [value]
        rows = [rows] if not isinstance(rows[0], list | tuple) else rows
        rows = list(rows) * (LEVELS if len(rows) == 1 else 1)
        valid = all(
            isinstance(row, list | tuple)
            and 0 < len(row) < 100
            and all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < 1e9 for v in row)
            for row in rows
        )
        if not valid or len(rows) != LEVELS:
            raise RequestError(
                f"{self.file.path} has {shown(value)} as {key}, not a list of numbers above 0 for each of {LEVELS} "
                "levels, or one for all"
            )
        return [tuple(float(v) for v in row) for row in rows]

    def _assumed(self) -> list[str]:
        lines = []
        if self.ignored:
            lines.append(f"{self.file.path.name} beside the file is no readable configuration of Detectron2")
        if self.missing:
            where = f"what {self.file.path.name} does not say" if self.file.values else "what the file does not say"
            values = ", ".join(f"{key} {_shown(self.defaults[key])}" for key in self.missing)
            lines.append(f"{where} is as in Detectron2's model zoo: {values}")
        return lines


def _is_theirs(values: Mapping[str, Any]) -> bool:
    """Whether a YAML file is a configuration of Detectron2; other projects write a config.yaml too."""
    return any(isinstance(values.get(section), dict) for section in ("MODEL", "INPUT", "TEST")) or "_BASE_" in values


def _sizes(file: Configuration, rows: list[tuple[float, ...]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """One size for each level, and the scales that all levels share."""
    scales = tuple(size / rows[0][0] for size in rows[0])
    for row in rows:
        same = len(row) == len(scales) and all(
            abs(size - row[0] * scale) <= 1e-4 * size for size, scale in zip(row, scales)
        )
        if not same:
            raise RequestError(
                f"{file.path} has MODEL.ANCHOR_GENERATOR.SIZES whose proportions differ from level to level: {row} "
                f"and {rows[0]}; they cannot be converted"
            )
    return tuple(row[0] for row in rows), scales


def _shown(value: Any) -> str:
    if value == SIZES:
        return "32 to 512 times 1, 2^(1/3), 2^(2/3)"
    return f"[{', '.join(f'{v:g}' for v in value)}]" if isinstance(value, tuple) else str(value)
