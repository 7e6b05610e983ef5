"""The examples in the docstrings of the public API run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers.synthetic_data import bright_boxes
from helpers.tiny_run import tiny
from retinanet import Detections, Detector, RetinaNet
from retinanet.data import DetectionData
from retinanet.ops import boxes

MODULES = [
    "retinanet.api.evaluation_run",
    "retinanet.api.loading",
    "retinanet.config.settings",
    "retinanet.data.dataset",
    "retinanet.inference.detections",
    "retinanet.inference.detector",
    "retinanet.losses.focal",
    "retinanet.model.retinanet",
    "retinanet.ops.boxes",
]
"""Where the public names are defined."""
WITHOUT = {
    Detections: {"show", "to_supervision", "rows"},
    Detector: {
        *("checkpoint", "decode", "detect", "detect_each", "forward", "fuse", "prepare", "require", "weights"),
        *("from_checkpoint", "from_pretrained", "push_to_hub", "evaluate", "export", "to"),
    },
}
"""Public methods without an example: they need a screen, a package or a network, or are steps of another method."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples name: a run, a data set, an image and a folder of two."""
    here = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    (here / "runs" / "mine").mkdir(parents=True)
    network = RetinaNet(tiny().model, 2, load_weights=False)
    Detector(network, ["cat", "dog"]).save(here / "runs" / "mine" / "best.safetensors")
    bright_boxes(here / "animals")
    (here / "photos").mkdir()
    for name in ("image.jpg", "photos/1.jpg", "photos/2.jpg"):
        Image.new("RGB", (64, 48), (90, 120, 60)).save(here / name)
    return here


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    module = importlib.import_module(name)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).attempted
    assert not runner.summarize(verbose=False).failed, "".join(output)


def public_methods(owner: type) -> list[str]:
    return [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
    ]


@pytest.mark.parametrize("owner", [Detections, Detector])
def test_every_method_has_an_example(owner: type) -> None:
    methods = set(public_methods(owner))
    assert WITHOUT[owner] <= methods
    assert not {name for name in methods - WITHOUT[owner] if ">>> " not in (getattr(owner, name).__doc__ or "")}


def test_every_class_and_function_has_an_example() -> None:
    import retinanet
    from retinanet.losses import sigmoid_focal_loss

    places = retinanet._MODULES.items()
    public: list[Callable[..., object]] = [getattr(importlib.import_module(place), name) for name, place in places]
    assert len(public) == len(retinanet.__all__) - 1
    geometry = [value for name, value in vars(boxes).items() if inspect.isfunction(value)]
    assert len(geometry) > 8
    missing = {
        each.__name__
        for each in (*public, sigmoid_focal_loss, DetectionData, *geometry)
        if ">>> " not in (each.__doc__ or "")
    }
    assert not missing
