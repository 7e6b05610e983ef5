"""Which device computes, and what devices cannot do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown


def fastest_device() -> torch.device:
    """CUDA where there is a GPU for it, else Apple's GPU (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_device(device: Any = None) -> torch.device:
    """The device of that name.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", ... or a ``torch.device``; a number, such as 1 or "1", is that GPU;
            None and "auto" mean :func:`fastest_device`.

    Raises:
        RequestError: there is no such device here.
    """
    if device is None or device == "auto":
        return fastest_device()
    if not isinstance(device, str | int | torch.device) or isinstance(device, bool) or device == "":
        raise RequestError(f'device must be a text such as "cpu" or "cuda:0", not {shown(device)}')
    number = str(device)
    name = f"cuda:{int(number)}" if number.isascii() and number.isdecimal() else device
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RequestError(f"device {device} cannot be used here: {first_line(error).rstrip('.')}") from error


def has_float64(device: torch.device) -> bool:
    """Whether tensors on this device can be float64. Apple's GPUs have no such numbers."""
    return device.type != "mps"


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``. For CUDA the CPU does not wait for the copy; on MPS a copy like that may be read too
    early."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def wait_for(device: torch.device) -> None:
    """Wait until the device has computed everything that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Give memory that PyTorch keeps for later tensors back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_name(device: torch.device) -> str:
    """The device in words, such as "NVIDIA H100" or "Apple's GPU"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple's GPU" if device.type == "mps" else device.type
