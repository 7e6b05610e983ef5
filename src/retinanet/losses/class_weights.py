"""Weights per class in the loss: alpha and a factor, given by class name, as tensors (K,)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.common.arguments import real
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings

SHOWN = 20  # class names that a message lists


@dataclass(frozen=True)
class ClassBalance:
    """The weights of the terms of the class loss."""

    alpha: float | Tensor | None
    """Weight of positives, 1 - alpha that of background: for all classes, or (K,) float32; None leaves both at 1."""
    weights: Tensor | None = None
    """(K,) float32, a factor for both terms of each class; None is 1 for all."""


def class_balance(settings: LossSettings, class_names: Sequence[str]) -> ClassBalance:
    """``loss.alpha``, ``loss.alphas`` and ``loss.class_weights`` for these classes, on the CPU.

    Raises:
        RequestError: a setting names a class that is not among ``class_names``.
    """
    _require_known("loss.alphas", settings.alphas, class_names)
    _require_known("loss.class_weights", settings.class_weights, class_names)
    alpha, alphas, factors = settings.alpha, settings.alphas, settings.class_weights
    if not alphas and not factors:
        return ClassBalance(alpha)
    weights = torch.tensor([factors.get(name, 1.0) for name in class_names])
    if not alphas:
        return ClassBalance(alpha, weights)
    if alpha is None:  # Both terms of classes that are not named get the weight 1, which is half of 2.
        weights *= torch.tensor([1.0 if name in alphas else 2.0 for name in class_names])
        alpha = 0.5
    elif not factors:
        return ClassBalance(torch.tensor([alphas.get(name, alpha) for name in class_names]))
    return ClassBalance(torch.tensor([alphas.get(name, alpha) for name in class_names]), weights)


def term_weights(
    alpha: float | Tensor | None, weights: Tensor | None, logits: Tensor
) -> tuple[float | Tensor, float | Tensor]:
    """The weights of positive and of negative terms.

    Args:
        alpha, weights: as in :class:`ClassBalance`; gradients do not reach them.
        logits: (..., K).

    Returns:
        Two numbers, or two tensors (K,) on the logits' device, float32 (float64 for float64 logits).

    Raises:
        ValueError: a tensor is not of the shape (K,), or the number alpha is not in [0, 1].
    """
    if alpha is not None and not isinstance(alpha, Tensor) and not 0 <= real("alpha", alpha) <= 1:
        raise RequestError(f"alpha must be in [0, 1], not {alpha}")
    if weights is None and not isinstance(alpha, Tensor):
        return (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    for name, value in (("alpha", alpha), ("weights", weights)):
        if isinstance(value, Tensor) and value.shape != logits.shape[-1:]:
            raise ValueError(f"{name} must be of the shape ({logits.shape[-1]},), not {tuple(value.shape)}")
    factor = 1.0 if weights is None else weights.detach().to(logits.device, wide)
    if alpha is None:
        return factor, factor
    if isinstance(alpha, Tensor):
        # 1 - alpha is computed in the precision of alpha: rounded before, it would lose digits near 1.
        alpha, rest = (term.detach().to(logits.device, wide) for term in (alpha, 1 - alpha))
        return factor * alpha, factor * rest
    return factor * alpha, factor * (1 - alpha)


def _require_known(setting: str, named: Mapping[str, float], class_names: Sequence[str]) -> None:
    for name in named:
        if name in class_names:
            continue
        folded = {known.casefold(): known for known in class_names}
        near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded)]
        if near:
            hint = f"did you mean {' or '.join(map(repr, near))}?"
        elif class_names:
            more = f" and {len(class_names) - SHOWN} more" if len(class_names) > SHOWN else ""
            hint = f"they are {', '.join(class_names[:SHOWN])}{more}"
        else:
            hint = "no class names are known here"
        raise RequestError(f"{setting}: the data set has no class {name!r}; {hint}")
