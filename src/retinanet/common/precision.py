"""The number format to compute in."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, Literal, NamedTuple, cast

import torch

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown

Precision = Literal["fp32", "bf16", "fp16"]
Request = Literal["auto", "fp32", "bf16", "fp16"]
"""What a user may choose."""

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

VARIABLE = "RETINANET_PRECISION"


def requested(precision: str) -> str:
    """``precision``; if it is "auto", the environment variable RETINANET_PRECISION if that is set.

    Raises:
        RequestError: the variable is not one of auto, fp32, bf16, fp16.
    """
    value = os.environ.get(VARIABLE) or "auto"
    if precision != "auto":
        return precision
    if value not in ("auto", *DTYPES):
        raise RequestError(
            f"the environment variable {VARIABLE} must be one of auto, {', '.join(DTYPES)}, not {value!r}"
        )
    return value


def require_known(precision: Any, known: Collection[str] = ("auto", *DTYPES)) -> None:
    """
    Raises:
        RequestError: ``precision`` is not one of ``known``.
    """
    if not isinstance(precision, str) or precision not in known:
        raise RequestError(f"precision must be one of {', '.join(known)}, not {shown(precision)}")


class Chosen(NamedTuple):
    """The precision of a detector."""

    precision: Precision
    fast: bool
    """Whether faster algorithms with slightly larger rounding errors are allowed."""
    why: str
    """The reason, for people."""


def for_model(request: Request | None, device: torch.device | str, origin: str | None = None) -> Chosen:
    """Choose the precision of a model on ``device``.

    Args:
        request: by default "auto" for our own models, and "fp32" for those of other projects, so that they give the
            same boxes as there.
        origin: the project and network of the weights, such as "torchvision, ResNet-50 v1"; None for our own models.

    Raises:
        RequestError: ``request`` is not one of auto, fp32, bf16, fp16.
    """
    if request is None and origin is not None:
        return Chosen("fp32", False, f'a model of {origin}: boxes as there; "auto" is faster')
    if request is not None:
        require_known(request)
    wanted = requested("auto" if request is None else request)
    if wanted == "auto":
        return Chosen(choose("auto", device), True, "the fastest here that changes boxes little")
    why = "as requested" if request == wanted else f"as the environment variable {VARIABLE} says"
    return Chosen(choose(wanted, device), False, why)


def choose(precision: str, device: torch.device | str) -> Precision:
    """The precision to compute in: ``precision`` itself, or what "auto" means on ``device``.

    "auto" is what the environment variable RETINANET_PRECISION says. Without it "auto" is bf16 where the machine
    multiplies in bf16 (CUDA from Ampere on, CPUs with AVX512-BF16 or AMX) and fp32 everywhere else: emulated bf16 is
    slower than fp32, and fp16 needs a scaled loss.

    Raises:
        RequestError: ``precision``, or the variable, is none of auto, fp32, bf16, fp16.
    """
    require_known(precision)
    precision = requested(precision)
    if precision == "auto":
        return "bf16" if computes_bf16(torch.device(device)) else "fp32"
    return cast(Precision, precision)


def computes_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bf16 numbers in hardware (a check that costs microseconds)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # These names are private. Without them fp32 is used, which is always right, only slower.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        has_instructions = any(getattr(torch.cpu, name, bool)() for name in checks)
        # ONEDNN_MAX_CPU_ISA may disable these instructions. Then oneDNN emulates bf16, nine times slower.
        return has_instructions and bool(getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)())
    return False
