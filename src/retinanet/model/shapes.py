"""A network's tensors by name, shape and type, without the memory or the work of making them."""

from __future__ import annotations

import os
import threading
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from retinanet.common.errors import RequestError
from retinanet.config.model_settings import ModelSettings
from retinanet.model.retinanet import RetinaNet

MOST = 50_000
"""The most parameters (tensors) of a network; timm's deepest have some thousand."""


def outline(settings: ModelSettings, num_classes: int, most: int = MOST) -> dict[str, Tensor]:
    """The state of a :class:`retinanet.RetinaNet` on the meta device, where tensors have a shape and no numbers.

    Args:
        most: parameters after which to stop building: settings may describe an endless network.

    Raises:
        RequestError: there is no such network, or it has more parameters.
    """
    count, thread = 0, threading.get_ident()

    def registered(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise ValueError(f"it has more than {most} parameters")

    hook = register_module_parameter_registration_hook(registered)
    try:
        with torch.device("meta"):
            return RetinaNet(settings, num_classes, load_weights=False).state_dict()
    except RequestError:
        raise
    except (ValueError, RuntimeError) as error:
        raise RequestError(f"a network of such settings cannot be built: {error}") from error
    finally:
        hook.remove()


def require_memory(settings: ModelSettings, num_classes: int) -> None:
    """
    Raises:
        RequestError: the weights alone would take more memory than this machine has.
    """
    needed = sum(tensor.numel() * tensor.itemsize for tensor in outline(settings, num_classes).values())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise RequestError(
            f"the network's weights would take {needed / 1e9:.0f} GB, and this machine has {there / 1e9:.0f} GB: set "
            "model.head.width, model.head.depth or model.pyramid.channels lower, or choose a smaller model.backbone"
        )
