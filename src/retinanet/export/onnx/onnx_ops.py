"""ONNX operators, written as if they were called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Numbers = bool | float | Sequence[Any] | np.ndarray


class Ops:
    """A list of nodes under one prefix: ``ops.Add(a, b)`` adds a node and gives the name of its result.

    Args:
        prefix: in front of all names, which keeps them apart from those of other parts of a graph.

    Attributes:
        nodes: in the order in which they were added, as ONNX wants them.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self._constants: list[Any] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    @property
    def constants(self) -> list[Any]:
        """Tensors that the nodes use; runtimes warn of others."""
        used = {name for node in self.nodes for name in node.input}
        return [tensor for tensor in self._constants if tensor.name in used]

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        if not kind[0].isupper():
            raise AttributeError(kind)

        def add(*inputs: str, outputs: int | Sequence[str] = 1, **attributes: Any) -> Any:
            """``outputs`` are names, or how many there are; of one the name is given, of several a list."""
            from onnx import helper

            place = f"{self.prefix}{kind}_{len(self.nodes)}"
            if isinstance(outputs, int):
                outputs = [f"{place}.{i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=place, **attributes))
            return outputs[0] if len(outputs) == 1 else list(outputs)

        return add

    def constant(self, values: Numbers, kind: type[np.generic], name: str = "") -> str:
        """The name of a constant; two that are equal are one, unless they have a name of their own."""
        from onnx import numpy_helper

        array = np.asarray(values, kind)
        key = (array.dtype.name, array.shape, array.tobytes())
        if not name and key in self._known:
            return self._known[key]
        known = f"{self.prefix}{name or f'constant_{len(self._constants)}'}"
        self._constants.append(numpy_helper.from_array(array, known))
        if not name:
            self._known[key] = known
        return known

    def ints(self, values: Numbers) -> str:
        return self.constant(values, np.int64)

    def floats(self, values: Numbers) -> str:
        return self.constant(values, np.float32)

    def doubles(self, values: Numbers) -> str:
        return self.constant(values, np.float64)

    def cast(self, tensor: str, kind: type[np.generic]) -> str:
        from onnx import helper

        result: str = self.Cast(tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
        return result

    def slice(self, tensor: str, start: int, stop: int, axis: int = -1) -> str:
        result: str = self.Slice(tensor, self.ints([start]), self.ints([stop]), self.ints([axis]))
        return result

    def rows(self, tensor: str, places: str) -> str:
        """Of every image the rows at ``places``: (B, N, ...) and (B, n) -> (B, n, ...)."""
        result: str = self.GatherND(tensor, self.Unsqueeze(places, self.ints([-1])), batch_dims=1)
        return result
