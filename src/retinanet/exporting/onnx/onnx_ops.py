"""ONNX operators as method calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Numbers = bool | float | Sequence[Any] | np.ndarray


class Ops:
    """A list of nodes under one prefix: ``ops.Add(a, b)`` adds a node and returns the name of its result.

    Args:
        prefix: of all names, so that they differ from those in other parts of a graph.

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
        """The constants that nodes use; runtimes warn of unused ones."""
        used = {name for node in self.nodes for name in node.input}
        return [tensor for tensor in self._constants if tensor.name in used]

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        if not kind[0].isupper():
            raise AttributeError(kind)

        def add(*inputs: str, outputs: int | Sequence[str] = 1, **attributes: Any) -> Any:
            """Add a node; ``outputs`` are names or their number. Returns one name, or a list of several."""
            from onnx import helper

            node = f"{self.prefix}{kind}_{len(self.nodes)}"
            if isinstance(outputs, int):
                outputs = [f"{node}.{i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name=node, **attributes))
            return outputs[0] if len(outputs) == 1 else list(outputs)

        return add

    def constant(self, values: Numbers, kind: type[np.generic], name: str = "") -> str:
        """Add a constant and return its name; equal constants without ``name`` are shared."""
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

    def rows(self, tensor: str, indices: str) -> str:
        """The rows of every image at ``indices``: (B, N, ...) and (B, n) -> (B, n, ...)."""
        result: str = self.GatherND(tensor, self.Unsqueeze(indices, self.ints([-1])), batch_dims=1)
        return result
