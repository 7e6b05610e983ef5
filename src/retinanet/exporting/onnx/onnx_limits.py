"""Limits on ONNX files of unknown origin, checked before ONNX Runtime reads them.

An ONNX file can only calculate, but it may calculate for ever or fill the memory. So it must not read other files,
contain loops (no operator of our exports has a graph inside), use operators of other domains, or make a tensor of a
huge constant size. Within these limits a file can still need more work than a normal one; that ends with the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinanet.common.errors import RequestError, first_line

MOST_NODES = 50_000
LARGEST = 2**26
"""The most numbers in a tensor whose size is written into the file."""
SIZE_INPUTS = {
    **{
        "ConstantOfShape": (0,),
        "Expand": (1,),
        "Tile": (1,),
        "Resize": (2, 3),
        "Pad": (1,),
        "OneHot": (1,),
        "Range": (1,),
    },
    **{"AffineGrid": (1,), "CenterCropPad": (1,), "Col2Im": (1, 2), "MaxUnpool": (2,)},
    **{"BlackmanWindow": (0,), "HammingWindow": (0,), "HannWindow": (0,)},
}
"""Operators that make large tensors of small ones, with the indices of their inputs that give the size."""


def read(path: Path) -> Any:
    """The ``onnx.ModelProto`` in a file, without weights that are in other files.

    Raises:
        RequestError: the file is no ONNX, or the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise RequestError(f"{path} needs {error.name}: pip install 'retinanet[onnx]'") from None
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, which has several implementations
        raise RequestError(f"{path} cannot be read as an ONNX model: {first_line(error)}") from error


def require_harmless(model: Any, path: Path) -> None:
    """
    Raises:
        RequestError: the model breaks a limit of this module; the message names ``path``.
    """
    try:
        bad = next(_unknown(model), None)
    except Exception as error:  # for constants with wrong declarations
        raise RequestError(f"{path} cannot be read as an ONNX model: {first_line(error)}") from error
    if bad is not None:
        raise RequestError(f"{path} is refused: it has {bad}, which no export of retinanet has")


def _unknown(model: Any) -> Iterator[str]:
    import onnx

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    if len(graph.node) > MOST_NODES or len(graph.initializer) > MOST_NODES:
        yield f"more than {MOST_NODES} nodes or weights"
    if model.functions or model.training_info or graph.sparse_initializer:
        yield "functions, training or sparse weights"
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"an operator of {node.domain[:40]!r}"
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) or attribute.HasField("g"):
                yield f"a graph inside a graph ({node.op_type[:40]})"
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.update(dict.fromkeys(node.output, attribute.t))
            elif attribute.name == "shape" and math.prod(attribute.ints) > LARGEST:
                yield f"a tensor of a huge constant size ({node.op_type[:40]})"
            elif node.op_type == "Constant" and attribute.ints:
                tensors.update(
                    dict.fromkeys(node.output, onnx.helper.make_tensor("", 7, [len(attribute.ints)], attribute.ints))
                )
    for tensor in tensors.values():
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield "weights in another file"
        if math.prod(tensor.dims) > 2**31 or any(side < 0 for side in tensor.dims):
            yield "a weight of an impossible size"
    for node in graph.node:
        for i in SIZE_INPUTS.get(node.op_type, ()):
            name = node.input[i] if i < len(node.input) else ""
            if name in tensors and _product(tensors[name]) > LARGEST:
                yield f"a tensor of a huge constant size ({node.op_type})"


def _product(tensor: Any) -> float:
    """The product of a small constant's numbers."""
    import onnx

    if len(tensor.dims) > 1 or math.prod(tensor.dims) > 64:
        return 0
    values = onnx.numpy_helper.to_array(tensor).ravel().astype(float).tolist()
    return math.prod(max(1.0, abs(value)) for value in values)
