"""The GPU kernels of the focal loss against the plain formula, in Triton's interpreter or on a GPU."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from retinanet.losses import sigmoid_focal_loss
from retinanet.losses.focal import sigmoid_focal_loss_reference

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds on Linux")


@pytest.fixture(scope="module")
def kernels() -> Any:
    return importlib.import_module("retinanet.losses.focal_triton")


def case(rows: int, classes: int, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + classes)
    logits = ((torch.rand((rows, classes), generator=generator) * 2 - 1) * scale).to(dtype)
    labels = torch.randint(-2, classes, (rows,), generator=generator)
    return logits, labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize(("alpha", "scale"), [(0.25, 1.0), (None, 10.0), (0.75, 100.0)])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (7, 3), (130, 80), (0, 5)])
def test_value_and_gradient(
    kernels: Any, rows: int, classes: int, gamma: float, alpha: float | None, scale: float, dtype: torch.dtype
) -> None:
    logits, labels = case(rows, classes, scale, dtype)
    exact = logits.double().requires_grad_()
    expected = sigmoid_focal_loss_reference(exact, labels, gamma, alpha)
    (3 * expected).backward()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = logits.to(device).requires_grad_()
    loss = kernels.FocalLoss.apply(moved, labels.to(device), gamma, alpha)
    (3 * loss).backward()
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    torch.testing.assert_close(loss.cpu().double(), expected.detach(), rtol=3e-5, atol=1e-6)
    assert moved.grad is not None
    assert exact.grad is not None
    assert moved.grad.dtype == dtype
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]  # the interpreter truncates
    smallest = 1e-7 if dtype == torch.float16 else 1e-30
    torch.testing.assert_close(moved.grad.cpu().double(), exact.grad, rtol=tolerance, atol=smallest)


def test_an_ignored_anchor_may_say_anything(kernels: Any) -> None:
    logits = torch.tensor([[math.inf, -math.inf, math.nan], [1.0, 2.0, 3.0]])
    logits = logits.to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_()
    labels = torch.tensor([-2, -1], device=logits.device)
    loss = kernels.FocalLoss.apply(logits, labels, 2.0, 0.25)
    loss.backward()
    torch.testing.assert_close(loss.cpu(), sigmoid_focal_loss(logits[1:].cpu(), labels[1:].cpu()))
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [0, 0, 0]


def test_small_background_losses_are_not_lost(kernels: Any) -> None:
    """Cross entropy of a thousand background logits of -25: log(1 + e) in float32 would be 0."""
    logits = torch.full((1000, 1), -25.0, device="cuda" if torch.cuda.is_available() else "cpu")
    labels = torch.full((1000,), -1, device=logits.device)
    loss = kernels.FocalLoss.apply(logits, labels, 0.0, None)
    assert float(loss) == pytest.approx(1000 * 1.3887943864771144e-11, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_takes_the_kernels() -> None:
    logits, labels = (tensor.cuda() for tensor in case(5, 3, 1.0, torch.float32))
    loss = sigmoid_focal_loss(logits.requires_grad_(), labels)
    assert type(loss.grad_fn).__name__ == "FocalLossBackward"
    torch.testing.assert_close(loss.cpu(), sigmoid_focal_loss(logits.cpu(), labels.cpu()))
