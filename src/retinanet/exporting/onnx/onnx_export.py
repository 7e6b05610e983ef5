"""One ONNX file: bytes in, detections out; or the network alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.version import __version__
from retinanet.config.convert import to_plain
from retinanet.config.model_settings import ModelSettings
from retinanet.exporting.onnx.onnx_ops import Ops
from retinanet.exporting.onnx.onnx_postprocess import postprocess
from retinanet.exporting.onnx.onnx_preprocess import preprocess
from retinanet.inference.detector import Detector
from retinanet.model.retinanet import RetinaNet

FORMAT = "retinanet-onnx-1"
OPSET = 18
"""The first with an antialiased resize."""
NETWORK_INPUT = "normalised"
"""Name of the network's input (B, 3, H, W) float32 in a complete file."""
EXAMPLE = (2, 3, 288, 416)
"""Shape of the traced batch: no side of any level is 1, which tracing would take for a constant."""


class Flat(nn.Module):
    """The network with its outputs in one tuple: logits of each level, then deltas of each level."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(images)
        return (*outputs.logits, *outputs.deltas)


def output_names(settings: ModelSettings) -> list[str]:
    """logits.p3, ..., deltas.p3, ..."""
    return [f"{kind}.p{level}" for kind in ("logits", "deltas") for level in settings.anchors.levels]


def dynamic_shapes() -> dict[str, Any]:
    """Any number of images, any side that is a multiple of 32."""
    dim = torch.export.Dim
    return {"images": {0: dim("batch"), 2: 32 * dim("height32"), 3: 32 * dim("width32")}}


def write(
    detector: Detector, path: Path, network_only: bool = False, on_progress: Callable[[str], None] | None = None
) -> None:
    """Write ``detector`` as an ONNX file, checked by ONNX's own checker only.

    Raises:
        RequestError: a package is missing.
        WorkError: the network does something that cannot be exported.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (PyTorch's exporter needs it)
    except ImportError as error:
        raise RequestError(f"an ONNX export needs {error.name}: pip install 'retinanet[onnx]'") from None

    say = on_progress or (lambda text: None)
    say("tracing the network")
    model = assemble(trace(detector.model), detector, network_only)
    onnx.checker.check_model(model, full_check=True)
    say("writing")
    onnx.save(model, path)


def assemble(model: Any, detector: Detector, network_only: bool = False) -> Any:
    """Turn a traced network, in place, into the whole model with its metadata."""
    import onnx

    settings, names, graph = detector.settings, detector.class_names, model.graph
    if network_only:
        declare_network(graph, settings, len(names))
    else:
        _surround(graph, settings, len(names))
    graph.name = "retinanet"
    model.producer_name, model.producer_version, model.model_version = "retinanet", __version__, 1
    model.doc_string = _description(settings, names, network_only)
    onnx.helper.set_model_props(model, _metadata(detector, network_only))
    return model


def trace(network: RetinaNet) -> Any:
    """The network as an ONNX model: input "images", outputs as :func:`output_names`; without paths of this machine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                Flat(network),
                (torch.zeros(EXAMPLE),),
                dynamo=True,
                input_names=["images"],
                output_names=output_names(network.settings),
                dynamic_shapes=dynamic_shapes(),
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except Exception as error:  # a backbone may do anything
        reason = first_line(error)
        raise WorkError(f"{network.settings.backbone.name} cannot be exported to ONNX: {reason}") from error
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for node in model.graph.node:  # These name source files of this machine.
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        del tensor.metadata_props[:]
    return model


def declare_network(graph: Any, settings: ModelSettings, num_classes: int) -> None:
    """Declare input and outputs of the network alone, with readable names of their dimensions."""
    from onnx import TensorProto

    del graph.input[:], graph.output[:]
    _declare(graph.input, "images", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    for name in output_names(settings):
        kind, _, level = name.partition(".")
        _declare(
            graph.output, name, TensorProto.FLOAT, ["batch", f"anchors.{level}", num_classes if kind == "logits" else 4]
        )


def _surround(graph: Any, settings: ModelSettings, num_classes: int) -> None:
    """Put resizing and normalisation before the network, and decoding and suppression after it."""
    from onnx import TensorProto

    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == "images":
                node.input[i] = NETWORK_INPUT
    before, after = Ops("before/"), Ops("after/")
    sides = preprocess(before, "images", settings.preprocessing, NETWORK_INPUT)
    outputs, count = output_names(settings), len(settings.anchors.levels)
    postprocess(after, outputs[:count], outputs[count:], sides, settings, num_classes)
    network = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*before.nodes, *network, *after.nodes])
    graph.initializer.extend([*before.constants, *after.constants])
    most = settings.postprocessing.max_detections
    _declare(graph.input, "images", TensorProto.UINT8, ["batch", "height", "width", 3])
    _declare(graph.output, "boxes", TensorProto.FLOAT, ["batch", most, 4])
    _declare(graph.output, "scores", TensorProto.FLOAT, ["batch", most])
    _declare(graph.output, "labels", TensorProto.INT64, ["batch", most])
    _declare(graph.output, "counts", TensorProto.INT64, ["batch"])


def _declare(values: Any, name: str, kind: int, shape: Sequence[str | int]) -> None:
    from onnx import helper

    values.append(helper.make_tensor_value_info(name, kind, shape))


def _metadata(detector: Detector, network_only: bool) -> dict[str, str]:
    settings, threshold = detector.settings, detector.threshold
    return {
        "format": FORMAT,
        "retinanet.kind": "network" if network_only else "complete",
        "retinanet.version": __version__,
        "retinanet.settings": json.dumps(to_plain(settings)),
        "retinanet.classes": json.dumps(list(detector.class_names)),
        "retinanet.extra": json.dumps(detector.about),
        # For programs that do not know our settings.
        "threshold": str(settings.postprocessing.threshold if threshold is None else threshold),
        "names": json.dumps(dict(enumerate(detector.class_names))),
    }


def _description(settings: ModelSettings, names: Sequence[str], network_only: bool) -> str:
    if network_only:
        return (
            "RetinaNet without pre- and post-processing. images: (batch, 3, height, width) float32, normalised, sides "
            f"multiples of 32. logits.pN: (batch, anchors, {len(names)}), deltas.pN: (batch, anchors, 4), for each "
            "pyramid level N; anchors row by row, those of a position side by side. Settings in the metadata."
        )
    most = settings.postprocessing.max_detections
    return (
        "RetinaNet. images: (batch, height, width, 3) uint8 RGB, images of one size. Of each image, the "
        f"highest-scoring first: boxes (batch, {most}, 4) float32 x1 y1 x2 y2 in its pixels, scores (batch, {most}) "
        f"float32, labels (batch, {most}) int64, indices into the class names; counts (batch,) int64 of them are "
        "detections, the rest is 0, 0 and -1."
    )
