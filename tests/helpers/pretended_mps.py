"""Tensors that say they are on Apple's GPU: for tests of what that device cannot do, on machines that have none.

The numbers are computed on the CPU. As on the real device, float64 is refused, and so is an operation between a tensor
of the device and one of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

MPS = torch.device("mps")
CPU = torch.device("cpu")


class MpsTensor(Tensor):
    """A tensor whose device is "mps"; ``numbers`` holds its values, on the CPU."""

    numbers: Tensor
    device = MPS

    @staticmethod
    def __new__(cls, numbers: Tensor) -> MpsTensor:
        if numbers.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        wrapper: MpsTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CPU,
        )
        wrapper.numbers = numbers
        return wrapper

    def __repr__(self) -> str:  # type: ignore[override]
        return f"MpsTensor({self.numbers})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        mixed = any(value.ndim and not isinstance(value, MpsTensor) for value in given) and "copy_" not in func.__name__
        if mixed and torch._C._current_autograd_node() is None:  # type: ignore[attr-defined]
            # PyTorch's formulas of gradients make constants of their own, which would be on the device.
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device, found mps and cpu")
        same = {id(value.numbers): value for value in given if isinstance(value, MpsTensor)}
        args, kwargs = tree_map(lambda value: getattr(value, "numbers", value), (args, kwargs or {}))

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            # An operation in place returns the tensor that it was given.
            return same[id(value)] if id(value) in same else MpsTensor(value)

        return tree_map(wrapped, func(*args, **kwargs))


class _Moves(TorchFunctionMode):
    """Makes tensors of the device, and moves them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.cpu:
            return self._to(args[0], CPU)
        if func is Tensor.tolist:
            return self._to(args[0], CPU).tolist()
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "mps":
            return func(*args, **kwargs)
        made = func(*args, **kwargs | {"device": CPU})
        return made if isinstance(made, MpsTensor) else MpsTensor(made)

    @staticmethod
    def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, _, memory = torch._C._nn._parse_to(
            *args, **{name: value for name, value in kwargs.items() if name != "copy"}
        )
        options = {"copy": kwargs.get("copy", False)} | ({} if memory is None else {"memory_format": memory})
        here = tensor.device.type
        there = here if device is None else device.type
        if here == there:
            return tensor.to(dtype or tensor.dtype, **options)
        if tensor.dtype == torch.float64:
            raise TypeError("a tensor becomes float32 before it moves to MPS")
        numbers = tensor.numbers if isinstance(tensor, MpsTensor) else tensor
        moved = numbers.to(dtype or tensor.dtype, **options | {"copy": True})
        return MpsTensor(moved) if there == "mps" else moved


@contextmanager
def pretended_mps() -> Iterator[torch.device]:
    """A block in which tensors and modules can be moved to the device that it yields."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a module gets new parameters of the other type
    try:
        with _Moves():
            yield MPS
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
