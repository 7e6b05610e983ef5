"""What hands know from other detectors: flags such as ``--imgsz``, words such as ``epochs=10``, verbs such as ``val``.

Each is understood where the meaning is the same, and otherwise answered by one line that says what to type. The tables
below are all there is: a flag that a command has itself is not in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from retinanet.common.errors import RequestError

VERBS = {
    **dict.fromkeys(("val", "eval", "validate"), "evaluate"),
    **dict.fromkeys(("detect", "infer", "inference"), "predict"),
    **{"fit": "train", "benchmark": "bench", "check": "data", "doctor": "data"},
}
"""Other names of commands."""
ANSWERED_VERBS = {
    "test": "retinanet evaluate MODEL DATA --split test; for images without labels: retinanet predict MODEL IMAGE...",
    "track": "retinanet predict MODEL VIDEO --track",
    "finetune": "retinanet train DATA --weights MODEL",
    "fine-tune": "retinanet train DATA --weights MODEL",
    "resume": "retinanet train --resume RUN",
    "tune": "retinanet train DATA; it fits the settings to the data and this machine",
    "help": "retinanet --help",
    "version": "retinanet --version",
}

DATA, MODEL, SOURCE = "DATA", "MODEL", "SOURCE"
_MODEL = dict.fromkeys(("model", "weights", "checkpoint", "ckpt"), MODEL)
_DATA = dict.fromkeys(("data", "dataset", "data-path", "dataset-dir", "data-dir"), DATA)
_SIZE = dict.fromkeys(("imgsz", "img", "img-size", "image-size", "resolution"), "--size")
_BATCH = {"batch": "--batch-size"}
_THRESHOLD = dict.fromkeys(("conf", "conf-thres", "conf-thresh", "confidence", "score-thr"), "--threshold")
_OUTPUT = dict.fromkeys(("output-dir", "out-dir", "outdir", "out", "save-dir"), "--output")
_NMS = "the IoU of NMS belongs to the model: retinanet convert MODEL NEW.safetensors --model.postprocessing.nms-iou 0.5"
_COMPUTE = "the GPU multiplies in it by itself where it can: --precision auto, bf16, fp16 or fp32"
_LIKE_COCO = "an evaluation takes 100 detections of an image, as COCO's does: leave it out"

FLAGS: Mapping[str, Mapping[str, str]] = {
    "train": {
        **_DATA,
        **_SIZE,
        **_BATCH,
        **_OUTPUT,
        **dict.fromkeys(("model", "checkpoint", "ckpt"), "--weights"),
        **dict.fromkeys(("lr0", "learning-rate"), "--lr"),
        **dict.fromkeys(("cfg", "config-file"), "--config"),
        **dict.fromkeys(("gpus", "num-gpus"), "--devices"),
        **dict.fromkeys(("num-workers",), "--workers"),
        "momentum": "--train.momentum",
        "weight-decay": "--train.weight-decay",
        "cos-lr": "--train.schedule cosine",
        "half": "--precision fp16",
        "fliplr": "--data.augmentation.flip",
        "amp": f"mixed precision is chosen by --precision; {_COMPUTE}",
        "pretrained": "to start from trained weights, give --weights FILE",
        "time": "the time of a run is given by --budget 2h (or 15m, 90s)",
        "exist-ok": "a run is not written over: name another one with --output, or go on with --resume RUN",
        "warmup-epochs": "the warm-up is counted in steps: --train.warmup 500",
        "freeze": "stages of the backbone are frozen by --model.backbone.frozen-stages 2",
        "save-period": "the state is saved by time: --train.save-every 5m",
        "multi-scale": "sizes are drawn from a list: --data.augmentation.sizes 480 512 544",
        "cache": "there is no cache of images; more processes load them with --workers N",
        **dict.fromkeys(("nc", "num-classes", "classes"), "the classes are those of the data set: leave it out"),
        **dict.fromkeys(
            ("mosaic", "mixup", "copy-paste", "close-mosaic", "degrees", "shear", "perspective", "flipud"),
            "there is no such augmentation; those here are --data.augmentation.flip, zoom, crop and colour",
        ),
        **dict.fromkeys(
            ("hsv-h", "hsv-s", "hsv-v"),
            "colours are changed by --data.augmentation.colour 0.3 (0 is off, 1 is strong)",
        ),
    },
    "evaluate": {
        **_MODEL,
        **_DATA,
        **_BATCH,
        **_THRESHOLD,
        "half": "--precision fp16",
        "agnostic-nms": "--nms agnostic",
        "iou": _NMS,
        "max-det": _LIKE_COCO,
        **dict.fromkeys(_SIZE, "a model is evaluated at the image size it was trained for: leave it out"),
        **dict.fromkeys(
            ("name", "project", "output", "save-json", "plots", *_OUTPUT),
            "retinanet evaluate writes no folder; its numbers go to --json FILE.json",
        ),
    },
    "predict": {
        **_MODEL,
        **_SIZE,
        **_BATCH,
        **_THRESHOLD,
        **_OUTPUT,
        **dict.fromkeys(("source", "input", "images", "image"), SOURCE),
        "max-det": "--max-detections",
        "vid-stride": "--stride",
        "exist-ok": "--overwrite",
        "half": "--precision fp16",
        "save-txt": "--format yolo",
        "save-json": "--format json",
        "save-csv": "--format csv",
        "save": "--draw",
        "nosave": "--no-draw",
        "agnostic-nms": "--nms agnostic",
        "sahi": "tiles for small objects: --slices 640",
        **dict.fromkeys(("iou", "iou-thres"), _NMS),
        **dict.fromkeys(("slice-height", "slice-width", "slice-size"), "--slices"),
        **dict.fromkeys(("show", "view-img"), "the drawn images are in the output folder: open them there"),
        "classes": "all classes are drawn; in Python, detections.of('cat') chooses some",
    },
    "export": {
        **_MODEL,
        **_OUTPUT,
        "include": "--format",
        "half": "half precision is for OpenVINO: --format openvino --precision bf16",
        "int8": "int8 is for OpenVINO: --format openvino --precision int8 --calibrate FOLDER",
        "data": "images for int8 are given by --calibrate FOLDER",
        **dict.fromkeys(_SIZE, "an exported model resizes images itself, to the size it was trained for: leave it out"),
        "device": "an export is made on the CPU, and runs where its runtime does: leave it out",
    },
    "serve": {**_MODEL},
    "convert": {"output": "give the new file after the checkpoint: retinanet convert CHECKPOINT FILE.safetensors"},
    "data": {**_DATA, **_SIZE},
    "bench": {},
    "demo": {"name": "the folder is given by --output FOLDER"},
    "push": {**_MODEL},
    "paper": {},
}
"""By command: a flag of other projects, and what it means here.

* ``--option``: the same option under its name here, with the same values
* ``--option value``: a flag that stands for these words
* ``DATA``, ``MODEL`` or ``SOURCE``: an argument here, without a flag
* anything else: the answer to the user
"""
SWITCHES = ("--draw", "--no-draw", "--overwrite")
"""Options here that take no value."""
FOLDERS = ("train", "predict")
"""Commands that take ``--name`` and ``--project`` for their output folder."""

_WORD = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def translated(arguments: Sequence[str], verbs: Collection[str], options: Callable[[str], set[str]]) -> list[str]:
    """The arguments as the commands here know them.

    Args:
        verbs: the commands.
        options: the names of a command's own options, such as ``--epochs``. Asked only if a word such as ``epochs=10``
            is among the arguments.

    Raises:
        RequestError: a verb or a flag means something else here; the message says what to type.
    """
    rest = list(arguments)
    position = next((i for i, word in enumerate(rest) if not word.startswith("-")), None)
    if position is None:
        return rest
    if rest[position] == "detect" and rest[position + 1 : position + 2] and rest[position + 1] in {*verbs, *VERBS}:
        del rest[position]  # the task of ultralytics' command line
    verb = rest[position]
    if verb in ANSWERED_VERBS:
        raise RequestError(f"there is no command {verb}. Type: {ANSWERED_VERBS[verb]}")
    verb = rest[position] = VERBS.get(verb, verb)
    if verb not in verbs:
        return rest
    return _Translation(verb, options).of(rest[: position + 1], rest[position + 1 :])


class _Translation:
    """The arguments of one command, while they are translated."""

    def __init__(self, verb: str, options: Callable[[str], set[str]]) -> None:
        self.verb, self.flags, self.options = verb, FLAGS.get(verb, {}), options
        self.words: list[str] = []
        self.models: list[str] = []
        self.others: list[str] = []
        """Arguments that follow the model: the data set, or images."""
        self.folder: dict[str, str] = {}

    def of(self, head: list[str], rest: list[str]) -> list[str]:
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.others += rest
                break
            name, equals, value = word.partition("=")
            if word.startswith("--") and _plain(name) in self._known():
                self._add(_plain(name), name, [value] if equals else None, rest)
            elif match := self._is_pair(word):
                self._pair(*match)
            else:
                self.words.append(word)
        if self.folder:
            if "name" not in self.folder:
                raise RequestError("--project needs --name; or give the new folder: --output FOLDER")
            self.words += ["--output", os.path.join(self.folder.get("project", "runs"), self.folder["name"])]
        return [*head, *self.models, *self.words, *(["--", *self.others] if self.others else [])]

    def _known(self) -> set[str]:
        return {*self.flags, *(("name", "project") if self.verb in FOLDERS else ())}

    def _is_pair(self, word: str) -> tuple[str, str] | None:
        """Name and value of a word such as ``epochs=10``, if the name is known and the word is no file."""
        match = _WORD.fullmatch(word)
        if match is None or os.path.exists(word):
            return None
        name = _plain(match[1])
        known = name in self._known() or {f"--{name}", f"--{name.replace('-', '_')}"} & self.options(self.verb)
        return (name, match[2]) if known else None

    def _pair(self, name: str, value: str) -> None:
        given = f"{name}={value}"
        target = self.flags.get(name, f"--{name}")
        if value in ("True", "true", "False", "false") and target.startswith("--"):
            self._switch(target, value in ("True", "true"))
        elif name in self._known():
            self._add(name, given, [value], [])
        else:
            self.words.append(f"--{name}={value}")

    def _switch(self, target: str, on: bool) -> None:
        """A pair such as ``half=True``: the words of its flag, or nothing."""
        negative = target.replace("--", "--no-", 1)
        if on:
            self.words += target.split()
        elif negative in self.options(self.verb):
            self.words.append(negative)

    def _add(self, name: str, given: str, values: list[str] | None, rest: list[str]) -> None:
        """Add the meaning of a flag.

        Args:
            given: what the user typed.
            values: its values, if they were given with "="; otherwise they are the next of ``rest``.
        """
        target = self.flags.get(name, "")
        if target and target not in (DATA, MODEL, SOURCE) and not target.startswith("--"):
            raise RequestError(f"{given}: {target}")
        if " " in target or target in SWITCHES:
            self.words += target.split()
            return
        if values is None:
            count = 2 if target == "--size" and rest[1:2] and rest[1].isdigit() else 1
            values, rest[:count] = rest[:count], []
        if not values:
            raise RequestError(f"{given} needs a value")
        if name in ("name", "project") and not target:
            self.folder[name] = values[0]
        elif target == MODEL:
            self.models += values
        elif target in (DATA, SOURCE):
            self.others += values
        else:
            self.words += [target, _checked(name, target, values)]


def _checked(name: str, target: str, values: Sequence[str]) -> str:
    """The value of an option here; a few are written otherwise elsewhere.

    Raises:
        RequestError: it cannot be used here.
    """
    if target == "--size":
        sides = set(re.findall(r"\d+", " ".join(values)))
        if len(sides) > 1:
            raise RequestError(f"--{name} {' '.join(values)}: images keep their aspect ratio; give one number")
        return sides.pop() if sides else values[0]
    if target == "--batch-size" and not values[0].isdigit():
        raise RequestError(f"--{name} {values[0]}: leave it out, and the batch size is chosen")
    return values[0]


def _plain(name: str) -> str:
    return name.removeprefix("--").replace("_", "-")
