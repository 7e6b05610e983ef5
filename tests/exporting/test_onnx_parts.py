"""What stands around the network in an ONNX file, each part beside ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import exported_models as models
from retinanet.config.model_settings import AnchorSettings, ModelSettings, PostprocessingSettings, PreprocessingSettings
from retinanet.exporting.detector_agreement import Agreement
from retinanet.exporting.onnx.onnx_ops import Ops
from retinanet.exporting.onnx.onnx_postprocess import postprocess as write_postprocess
from retinanet.exporting.onnx.onnx_preprocess import Sides
from retinanet.exporting.onnx.onnx_preprocess import preprocess as write_preprocess
from retinanet.inference.detections import Detections
from retinanet.inference.postprocessing import postprocess
from retinanet.model.retinanet import Outputs
from retinanet.ops.anchors import make_anchors
from retinanet.ops.resize import box_scale, normalize, pad_batch, padded_size, resize_image

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

KINDS = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FLOAT", np.dtype(np.float64): "DOUBLE"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run(ops: Ops, inputs: dict[str, Any], outputs: list[str]) -> list[np.ndarray]:
    """Run what was written, with any shapes."""

    def kind(array: np.ndarray) -> int:
        return getattr(onnx.TensorProto, KINDS.get(array.dtype, "INT64"))

    given = [onnx.helper.make_tensor_value_info(n, kind(a), [None] * a.ndim) for n, a in inputs.items()]
    wanted = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
    graph = onnx.helper.make_graph(ops.nodes, "part", given, wanted, ops.constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(outputs, inputs)


RULES = {
    **{name: values.get("preprocessing", {}) for name, values in models.CONVENTIONS.items()},
    "large": {"size": 800, "longer": 1333},
    "large, rounded down": {"size": 800, "longer": 1333, "rounding": "down", "interpolation": "plain"},
    "large, opencv": {"size": 800, "longer": 1333, "interpolation": "opencv"},
}


@pytest.mark.parametrize("name", RULES)
def test_images(name: str) -> None:
    settings = replace(PreprocessingSettings(size=64, longer=107, mean=MEAN, std=STD), **RULES[name])
    ops = Ops("before/")
    sides = write_preprocess(ops, "images", settings, "pixels")
    large = settings.size == 800
    shapes = (
        [(50, 90), (1, 1), (427, 640)]
        if large
        else [*models.SHAPES, (128, 128), (127, 129), (900, 31), (214, 128), (1211, 1600)]
    )
    for shape in shapes:
        source = torch.randint(
            0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(shape[0])
        )
        image = resize_image(source, settings)
        size = (image.shape[1], image.shape[2])
        expected = normalize(pad_batch([image], padded_size([size], settings)), torch.tensor([size]), MEAN, STD)
        given = {"images": source.permute(1, 2, 0)[None].numpy()}
        pixels, resized, scale = run(ops, given, ["pixels", sides.resized, sides.scale])
        assert resized.tolist() == list(size)
        np.testing.assert_allclose(scale, box_scale(shape, size, settings), rtol=1e-15)
        assert pixels.shape == expected.shape
        apart = np.abs(pixels - expected.numpy()) * np.array(STD)[:, None, None] * 255
        exact = settings.interpolation != "pillow" or shape[0] < shape[1]  # of tall ones Pillow turns the order round
        assert apart.max() <= (0.05 if settings.interpolation == "plain" else 1e-3 if exact else 1.01)
        assert (pixels[:, :, size[0] :] == 0).all()
        assert (pixels[:, :, :, size[1] :] == 0).all()


@pytest.mark.parametrize("classes", [1, 3, 1000])
@pytest.mark.parametrize("name", ["ours", "agnostic", "torchvision", "detectron2", "mmdetection", "detectron"])
def test_detections(classes: int, name: str) -> None:
    values = {"postprocessing": {"nms": "agnostic"}} if name == "agnostic" else models.CONVENTIONS[name]
    anchors = replace(AnchorSettings(), **values.get("anchors", {}))
    after = PostprocessingSettings(threshold=0.5, candidates=300, max_detections=60)
    after = replace(after, **{"max_detections": 60, **values.get("postprocessing", {})})
    settings = ModelSettings(anchors=anchors, postprocessing=after)
    height, width, original, scale = 96, 160, (61, 99), (90 / 61, 150 / 99)
    levels = make_anchors(anchors, height, width, torch.device("cpu"))
    random = torch.Generator().manual_seed(classes)
    # The second image has a few objects, the third none.
    shift = torch.tensor([0.0, -6.0, -12.0])[:, None, None]
    spread = 1.5 if classes < 1000 else 0.8
    logits = [spread * torch.randn(3, len(one), classes, generator=random) - spread + shift for one in levels]
    deltas = [torch.randn(3, len(one), 4, generator=random) * 0.7 for one in levels]
    logits[0][1, 7:11, 0] += 9

    sizes, scales = torch.tensor([[90.0, 150.0]] * 3), torch.tensor([scale] * 3, dtype=torch.float64)
    expected = postprocess(Outputs(logits, deltas), levels, sizes, after, scales)
    ops = Ops("after/")
    places = [f"{kind}.{i}" for kind in ("logits", "deltas") for i in range(len(levels))]
    write_postprocess(ops, places[: len(levels)], places[len(levels) :], Sides(*Sides._fields), settings, classes)
    given = {name: tensor.numpy() for name, tensor in zip(places, [*logits, *deltas], strict=True)}
    given |= {"original": np.array(original, float), "padded": np.array([height, width])}
    given |= {"resized": np.array([90.0, 150.0]), "scale": np.array(scale)}
    boxes, scores, labels, counts = map(torch.from_numpy, run(ops, given, ["boxes", "scores", "labels", "counts"]))
    assert boxes.shape == (3, after.max_detections, 4)
    together = Agreement()
    for i, count in enumerate(counts.tolist()):
        mine = Detections(boxes[i, :count], scores[i, :count], labels[i, :count], ())
        there = expected[i][0] / scales[0, [1, 0, 1, 0]]
        limit = torch.tensor([original[1], original[0]] * 2)
        theirs = Detections(there.clamp(min=0).minimum(limit).float(), *expected[i][1:], ())
        together.add(mine, theirs, after)
    assert together.detections > 30
    assert (together.others, together.limits) == (0, 0)
    assert together.pixels < 1e-3
    assert together.score < 1e-5
    if name != "detectron":  # which keeps everything on the coarsest level
        assert counts[0] > counts[1] > counts[2] == 0
