"""Quantisation to 8 bits by NNCF, calibrated on the user's own images.

NNCF observes the values that the network computes on the images, and chooses scales for weights and activations from
them. The last convolution of each subnet stays in floating point: its outputs are the logits or deltas themselves.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from torch import Tensor

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.config.model_settings import ModelSettings
from retinanet.data.dataset import evenly
from retinanet.data.faults import Report
from retinanet.data.formats.listing import image_files
from retinanet.data.formats.split_folders import plain_name
from retinanet.data.image_io import read
from retinanet.data.layouts import find_layout
from retinanet.exporting.openvino.openvino_runtime import runtime, without_telemetry
from retinanet.ops.image_batch import network_input

MOST = 300
"""The most images that are used."""
FEW = 10
"""With fewer images the scales are a matter of chance."""
EVERY = 1.0  # seconds between progress messages


def calibration_images(source: Path) -> list[Path]:
    """At most ``MOST`` images, evenly spread: of the train split of a data set, else of a folder.

    Raises:
        RequestError: there are none.
    """
    if not source.exists():
        raise RequestError(f"--calibrate {source}: no such file or folder")
    paths: list[Path] = []
    try:
        layout = find_layout(source)
        split = next((name for name in layout.counts if plain_name(name) == "train"), None)
        if split is not None:
            paths = [Path(path) for path in layout.read(split, Report()).paths]
    except RequestError:  # images without labels are enough
        pass
    if not paths and source.is_dir():
        paths = list(image_files(source))
    if not paths:
        raise RequestError(f"--calibrate {source}: there is no image in it; give a folder of images")
    return evenly(paths, MOST)


def quantise(model: Any, settings: ModelSettings, images: list[Path], say: Callable[[str], None]) -> Any:
    """The network with 8-bit computation, except for the last convolution of each subnet.

    Raises:
        RequestError: an image cannot be read.
        WorkError: NNCF fails.
    """
    if len(images) < FEW:
        warnings.warn(
            f"int8 is calibrated on {len(images)} image{'s' * (len(images) > 1)} only: give some hundred like those "
            "of the deployment, and evaluate the result with retinanet evaluate",
            stacklevel=2,
        )
    toolkit = nncf()
    seen, reported = 0, time.monotonic()

    def transform(path: Path) -> Any:
        nonlocal seen, reported
        seen += 1
        if time.monotonic() - reported > EVERY and seen <= len(images):
            reported = time.monotonic()
            say(f"calibrating, {seen} of {len(images)} images")
        return prepared(path, settings).numpy()

    say(f"calibrating on {len(images)} images")
    with silent():
        try:
            return toolkit.quantize(
                model,
                toolkit.Dataset(images, transform),
                # Asymmetric ranges for activations, since not all of them come from a ReLU.
                preset=toolkit.QuantizationPreset.MIXED,
                target_device=toolkit.TargetDevice.CPU,
                subset_size=len(images),
                ignored_scope=toolkit.IgnoredScope(names=[last_convolution(output) for output in model.outputs]),
            )
        except RequestError:
            raise
        except Exception as error:  # of many kinds
            raise WorkError(f"the network cannot be quantised: {first_line(error)}") from error


def prepared(path: Path, settings: ModelSettings) -> Tensor:
    """The network's input for an image file, (1, 3, H, W) float32."""
    return network_input(read(path), settings.preprocessing).contiguous()


def last_convolution(output: Any) -> str:
    """The name of the convolution that makes an output; operators between the two only reorder the numbers."""
    node = output.get_node()
    while node.get_type_name() not in ("Convolution", "GroupConvolution"):
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def nncf() -> Any:
    """The module ``nncf``, its telemetry off.

    Raises:
        RequestError: it is not installed.
    """
    runtime("an int8 export")
    try:
        with without_telemetry():
            import nncf as module
    except ImportError as error:
        raise RequestError(f"an int8 export needs {error.name or 'nncf'}: pip install 'retinanet[openvino]'") from None
    return module


@contextmanager
def silent() -> Iterator[None]:
    """A context without NNCF's progress bars and messages: standard output may be the one of --json."""
    with errors_only("nncf"), redirect_stdout(io.StringIO()):
        yield


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """A context in which the logger ``name`` reports errors only."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
