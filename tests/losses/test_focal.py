"""The focal loss against the plain formula in float64, torch, torchvision and finite differences."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retinanet.common import threads
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings
from retinanet.losses import class_loss, sigmoid_focal_loss
from retinanet.losses.focal import sigmoid_focal_loss_reference
from retinanet.losses.focal_cpu import SLICE

GAMMAS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.floats(0.1, 5))
ALPHAS = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.75, 1.0]), st.floats(0, 1))


@st.composite
def cases(draw: Any) -> tuple[Tensor, Tensor]:
    """Logits (..., K) float64 in -100..100 and labels (...) with background and ignored rows."""
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    classes = draw(st.sampled_from([1, 2, 3, 80]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([1.0, 10.0, 100.0]))
    logits = (torch.rand((*shape, classes), generator=generator, dtype=torch.float64) * 2 - 1) * scale
    return logits, torch.randint(-2, classes, shape, generator=generator)


Alpha = float | Tensor | None


def numbers(classes: int, most: float, seed: int) -> Tensor:
    """(K,) float64 from 0 to ``most``, some of them at the ends of the range."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(classes, generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1) * most


@st.composite
def balances(draw: Any, classes: int) -> tuple[Alpha, Tensor | None]:
    """An alpha and weights, each for all classes or for each class."""
    seed, kind = draw(st.integers(0, 2**31)), draw(st.sampled_from(["one alpha", "alpha", "weights", "both"]))
    alpha = numbers(classes, 1, seed) if kind in ("alpha", "both") else draw(ALPHAS)
    return alpha, numbers(classes, 4, seed + 1) if kind in ("weights", "both") else None


@contextmanager
def path(asynchronous: bool) -> Iterator[None]:
    """The code for a CPU, or that for devices without kernels of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "asynchronous", lambda device: asynchronous)
        yield


paths = pytest.mark.parametrize("asynchronous", [False, True])


def reference(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: Alpha = 0.25, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Value and gradient of the plain formula in float64."""
    exact = logits.detach().double().requires_grad_()
    loss = sigmoid_focal_loss_reference(exact, labels, gamma, alpha, weights)
    return loss.detach(), torch.autograd.grad(loss, exact)[0]


def binary_targets(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, K) and targets (n, K) of 0 or 1, as other libraries take them, without ignored rows."""
    logits, labels = logits[labels != -2], labels[labels != -2]
    return logits, (labels[:, None] == torch.arange(logits.shape[-1])).to(logits.dtype)


def value_and_gradient(
    logits: Tensor, labels: Tensor, gamma: float, alpha: Alpha, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = sigmoid_focal_loss(logits, labels, gamma, alpha, weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


@given(st.floats(-30, 30), st.sampled_from([1, 0, -1, -2]), st.floats(0, 5), st.one_of(st.none(), st.floats(0.1, 0.9)))
def test_reference_is_the_papers_formula(x: float, label: int, gamma: float, alpha: float | None) -> None:
    """Of one logit, the one of class 1 of two; FL = -alpha_t (1 - p_t)^gamma log(p_t)."""
    p = 1 / (1 + math.exp(-x))
    p_t = p if label == 1 else 1 - p
    alpha_t = 1 if alpha is None else alpha if label == 1 else 1 - alpha
    wanted = 0 if label == -2 or p_t == 1 else -alpha_t * (1 - p_t) ** gamma * math.log(p_t)
    logits = torch.tensor([[-1000.0 if label != 0 else 1000.0, x]], dtype=torch.float64)
    found = sigmoid_focal_loss_reference(logits, torch.tensor([label]), gamma, alpha)
    assert float(found) == pytest.approx(wanted, rel=1e-3, abs=1e-12)


@paths
@given(cases(), GAMMAS, st.data())
@settings(max_examples=100, deadline=None)
def test_value_and_gradient(asynchronous: bool, case: tuple[Tensor, Tensor], gamma: float, data: Any) -> None:
    logits, labels = case
    balance = data.draw(balances(logits.shape[-1]))
    with path(asynchronous):
        loss, gradient = value_and_gradient(logits, labels, gamma, *balance)
    expected, expected_gradient = reference(logits, labels, gamma, *balance)
    assert (loss.dtype, loss.shape) == (torch.float64, ())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@paths
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
@given(cases(), GAMMAS, st.data())
@settings(max_examples=40, deadline=None)
def test_narrow_types(
    asynchronous: bool, dtype: torch.dtype, tolerance: float, case: tuple[Tensor, Tensor], gamma: float, data: Any
) -> None:
    logits, labels = case[0].to(dtype), case[1]
    balance = data.draw(balances(logits.shape[-1]))
    with path(asynchronous):
        loss, gradient = value_and_gradient(logits, labels, gamma, *balance)
    expected, expected_gradient = reference(logits, labels, gamma, *balance)
    assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)  # of the loss whatever the logits' type
    torch.testing.assert_close(loss.double(), expected, rtol=3e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=tolerance, atol=tolerance * 0.1)


@given(cases(), st.one_of(st.none(), st.floats(0, 1)))
@settings(max_examples=100, deadline=None)
def test_gamma_zero_is_balanced_cross_entropy(case: tuple[Tensor, Tensor], alpha: float | None) -> None:
    logits, targets = binary_targets(*case)
    weight = None if alpha is None else targets * alpha + (1 - targets) * (1 - alpha)
    expected = F.binary_cross_entropy_with_logits(logits, targets, weight, reduction="sum")
    torch.testing.assert_close(sigmoid_focal_loss(*case, 0.0, alpha), expected, rtol=1e-9, atol=1e-12)


@given(cases(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_is_torchvisions(case: tuple[Tensor, Tensor], gamma: float, alpha: float) -> None:
    from torchvision.ops import sigmoid_focal_loss as torchvisions

    # torchvision takes 1 - p_t by subtraction, which has few digits left for well separated examples
    logits, labels = case[0] / 10, case[1]
    expected = torchvisions(*binary_targets(logits, labels), alpha=alpha, gamma=gamma, reduction="sum")
    torch.testing.assert_close(sigmoid_focal_loss(logits, labels, gamma, alpha), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("p", "times"), [(0.9, 100), (1 - math.sqrt(0.001), 1000)])
@pytest.mark.parametrize("label", [0, -1])
def test_easy_examples_count_less(p: float, times: float, label: int) -> None:
    """With gamma 2 an example at p_t = 0.9 has 100 times less loss than under cross entropy, at 0.968 1000 times."""
    x = math.log(p / (1 - p)) * (1 if label == 0 else -1)
    logits, labels = torch.tensor([[x]], dtype=torch.float64), torch.tensor([label])
    entropy, focal = (sigmoid_focal_loss(logits, labels, gamma, None) for gamma in (0.0, 2.0))
    assert float(entropy) == pytest.approx(-math.log(p))
    assert float(entropy / focal) == pytest.approx(times)


@given(st.floats(-20, 20), st.booleans())
def test_gradient_of_cross_entropy(x: float, positive: bool) -> None:
    """d CE / dx = y (p_t - 1)."""
    y = 1 if positive else -1
    p = 1 / (1 + math.exp(-y * x))
    _, gradient = value_and_gradient(
        torch.tensor([[x]], dtype=torch.float64), torch.tensor([0 if positive else -1]), 0.0, None
    )
    assert float(gradient) == pytest.approx(y * (p - 1), rel=1e-6, abs=1e-12)


@given(cases(), st.floats(0, 4), st.floats(0.1, 2))
@settings(max_examples=30, deadline=None)
def test_falls_with_gamma(case: tuple[Tensor, Tensor], gamma: float, more: float) -> None:
    logits, labels = case
    less = sigmoid_focal_loss(logits, labels, gamma + more)
    assert 0 <= less <= sigmoid_focal_loss(logits, labels, gamma)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
def test_gradcheck(gamma: float, alpha: float | None) -> None:
    torch.manual_seed(1)
    logits = (torch.randn(2, 6, 3, dtype=torch.float64) * 3).requires_grad_()
    labels = torch.tensor([[-2, -1, 0, 1, 2, -1], [2, 2, -2, -1, -1, 0]])
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, labels, gamma, alpha), (logits,))
    # a factor from above arrives, such as the division by the number of positives or a loss scale
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, labels, gamma, alpha) / 7, (logits,))


def test_ignored_rows_have_neither_loss_nor_gradient() -> None:
    logits = torch.randn(5, 4) * 20
    loss, gradient = value_and_gradient(logits, torch.full((5,), -2), 2.0, 0.25)
    assert float(loss) == 0
    assert not gradient.any()
    labels = torch.tensor([3, -1, -1, 0, 2])
    mixed = torch.cat((logits, torch.full((3, 4), 90.0))), torch.cat((labels, torch.full((3,), -2)))
    loss, gradient = value_and_gradient(*mixed, 2.0, 0.25)
    alone, gradient_alone = value_and_gradient(logits, labels, 2.0, 0.25)
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(gradient[:5], gradient_alone)
    assert not gradient[5:].any()


def test_background_pushes_every_class_down() -> None:
    _, gradient = value_and_gradient(torch.randn(4, 3), torch.full((4,), -1), 2.0, 0.25)
    assert (gradient > 0).all()
    _, gradient = value_and_gradient(torch.randn(3, 3), torch.arange(3), 2.0, 0.25)
    assert torch.equal(gradient < 0, torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0, 2.0, 5.0])
def test_finite_and_right_at_extremes(dtype: torch.dtype, gamma: float) -> None:
    logits = torch.tensor([-100.0, -90, -80, -17, 0, 17, 80, 90, 100], dtype=dtype)[:, None].repeat(2, 1)
    labels = torch.tensor([0] * 9 + [-1] * 9)
    loss, gradient = value_and_gradient(logits, labels, gamma, None)
    expected, expected_gradient = reference(logits, labels, gamma, None)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-12
    )
    hopeless, _ = value_and_gradient(torch.tensor([[-100.0]]).to(dtype), torch.tensor([0]), gamma, None)
    assert float(hopeless) == pytest.approx(100)  # -log(p_t) = 100, not the 87 of a clamped logarithm


def test_small_gradients_survive_float16() -> None:
    """The gradient of an easy background anchor is below float16's smallest number; the loss scale has to reach it."""
    logits = torch.full((1, 1), -7.0, dtype=torch.float16, requires_grad=True)  # p is about 0.001
    (sigmoid_focal_loss(logits, torch.tensor([-1])) * 65536.0 * 4).backward()
    _, expected = reference(logits.detach(), torch.tensor([-1]), 2.0, 0.25)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), expected * 65536 * 4, rtol=1e-3, atol=0)


@pytest.mark.parametrize("rows", [SLICE // 80 - 1, SLICE // 80, 3 * (SLICE // 80) + 17])
def test_many_slices(rows: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(rows, 80) * 3 - 4, torch.randint(-2, 80, (rows,))
    loss, gradient = value_and_gradient(logits, labels, 2.0, 0.25)
    expected, expected_gradient = reference(logits, labels, 2.0, 0.25)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-7)


def test_one_row_wider_than_a_slice() -> None:
    logits = torch.randn(2, SLICE + 3)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, torch.tensor([SLICE + 2, -1])).double(),
        reference(logits, torch.tensor([SLICE + 2, -1]), 2.0, 0.25)[0],
        rtol=1e-5,
        atol=0,
    )


def assert_reference(logits: Tensor, labels: Tensor) -> None:
    loss, gradient = value_and_gradient(logits, labels, 2.0, 0.25)
    expected, expected_gradient = reference(logits, labels, 2.0, 0.25)
    torch.testing.assert_close(loss.double(), expected, rtol=3e-6, atol=1e-9)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=3e-5, atol=1e-9)


def test_views_and_strides() -> None:
    """The network's logits may be views in channels-last memory."""
    torch.manual_seed(0)
    maps = torch.randn(2, 6, 4, 5)  # (B, A * K, h, w), A = 2, K = 3
    labels = torch.randint(-2, 3, (2, 40))
    for memory in (torch.contiguous_format, torch.channels_last):
        logits = maps.contiguous(memory_format=memory).permute(0, 2, 3, 1).reshape(2, -1, 3)
        assert_reference(logits, labels)


def test_transposed_logits() -> None:
    """Dense, but in another order: a head's output with one anchor a position may come so."""
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 50).t(), torch.randint(-2, 3, (50,))
    assert_reference(logits, labels)


def test_a_second_backward_through_a_kept_graph() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 3, requires_grad=True), torch.randint(-2, 3, (50,))
    loss = sigmoid_focal_loss(logits, labels)
    (first,) = torch.autograd.grad(2 * loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits, retain_graph=True)
    torch.testing.assert_close(first, 2 * second)
    torch.testing.assert_close(second.double(), reference(logits.detach(), labels, 2.0, 0.25)[1], rtol=3e-5, atol=1e-9)


class Largest(TorchDispatchMode):
    """Bytes of the largest new tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.sizes += [t.numel() * t.element_size() for t in tree_leaves(result) if isinstance(t, Tensor)]
        return result


def test_memory(set_threads: Any) -> None:
    """Beside the gradient, in the logits' own type, nothing of the logits' size is made or kept."""
    set_threads(1)  # operations are watched in the calling thread alone
    logits = torch.randn(40_000, 80, dtype=torch.bfloat16, requires_grad=True)  # 6.4 MB
    labels = torch.full((40_000,), -1)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), Largest() as made:
        loss = sigmoid_focal_loss(logits, labels)
    assert kept == [logits.numel() * 2, labels.numel() * 8]  # logits and labels themselves
    big = [size for size in made.sizes if size > SLICE * 4]
    assert set(big) <= {logits.numel() * 2, labels.numel() * 8}  # the gradient, and views of logits and labels
    loss.backward()
    with torch.no_grad(), Largest() as made:
        sigmoid_focal_loss(logits, labels)
    # without a gradient only views of the logits are that large
    assert sum(size > SLICE * 4 and size != labels.numel() * 8 for size in made.sizes) <= 1
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept.clear()
        sigmoid_focal_loss(logits.detach(), labels)
    assert kept == []


@pytest.mark.parametrize(
    ("asynchronous", "dtype", "tolerance"),
    [(False, torch.float64, 1e-12), (False, torch.float32, 1e-6), (True, torch.float64, 1e-9)],
)
@given(cases(), GAMMAS, st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_equal_classes_give_what_one_alpha_gives(
    asynchronous: bool,
    dtype: torch.dtype,
    tolerance: float,
    case: tuple[Tensor, Tensor],
    gamma: float,
    alpha: float,
) -> None:
    logits, labels = case[0].to(dtype), case[1]
    equal, ones = torch.full(logits.shape[-1:], alpha, dtype=torch.float64), torch.ones(logits.shape[-1])
    wanted = value_and_gradient(logits, labels, gamma, alpha)
    with path(asynchronous):
        for found in (value_and_gradient(logits, labels, gamma, *own) for own in ((equal, ones), (alpha, ones))):
            for mine, other in zip(found, wanted):
                torch.testing.assert_close(mine, other, rtol=tolerance, atol=1e-30)


@paths
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.7])
def test_a_class_of_weight_0_is_not_learnt(asynchronous: bool, gamma: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 4) * 20, torch.randint(-2, 4, (40,))
    with path(asynchronous):
        _, gradient = value_and_gradient(logits, labels, gamma, 0.25, torch.tensor([1.0, 0.0, 2.0, 1.0]))
    assert not gradient[:, 1].any()
    assert gradient[labels != -2][:, [0, 2, 3]].any(0).all()


@paths
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
def test_gradcheck_with_classes_of_their_own(asynchronous: bool, gamma: float) -> None:
    torch.manual_seed(1)
    logits = (torch.randn(2, 6, 3, dtype=torch.float64) * 3).requires_grad_()
    labels = torch.tensor([[-2, -1, 0, 1, 2, -1], [2, 2, -2, -1, -1, 0]])
    own = torch.tensor([0.1, 0.5, 0.9]).double(), torch.tensor([2.0, 0.3, 1.0]).double()
    with path(asynchronous):
        assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, labels, gamma, *own) / 7, (logits,))


@paths
def test_an_ignored_anchor_may_say_anything(asynchronous: bool) -> None:
    logits = torch.tensor([[math.inf, -math.inf, math.nan], [1.0, 2.0, 3.0]])
    with path(asynchronous):
        loss, gradient = value_and_gradient(logits, torch.tensor([-2, 1]), 2.0, torch.full((3,), 0.25))
    torch.testing.assert_close(loss, sigmoid_focal_loss(logits[1:], torch.tensor([1])))
    assert not gradient[0].any()
    assert gradient[1].all()


@paths
def test_classes_of_their_own_over_many_slices_and_twice(asynchronous: bool) -> None:
    torch.manual_seed(0)
    rows = 2 * (SLICE // 80) + 17
    logits, labels = (torch.randn(rows, 80) * 3 - 4).requires_grad_(), torch.randint(-2, 80, (rows,))
    own = torch.rand(80), torch.rand(80) * 3
    with path(asynchronous):
        loss = sigmoid_focal_loss(logits, labels, 2.0, *own)
        (first,) = torch.autograd.grad(2 * loss, logits, retain_graph=True)
        (second,) = torch.autograd.grad(loss, logits)
    expected, expected_gradient = reference(logits.detach(), labels, 2.0, *own)
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(second.double(), expected_gradient, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(first, 2 * second)


def test_memory_with_classes_of_their_own(set_threads: Any) -> None:
    set_threads(1)  # operations are watched in the calling thread alone
    logits = torch.randn(40_000, 80, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.full((40_000,), -1)
    with Largest() as made:
        sigmoid_focal_loss(logits, labels, 2.0, torch.rand(80), torch.rand(80)).backward()
    big = {size for size in made.sizes if size > SLICE * 4}
    assert big <= {logits.numel() * 2, labels.numel() * 8}  # nothing of the logits' size is wider than they are


def test_numbers_and_labels_out_of_range() -> None:
    logits, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    for wrong in ({"gamma": float("nan")}, {"gamma": "2"}, {"gamma": float("inf")}, {"alpha": 2}, {"alpha": "x"}):
        with pytest.raises(RequestError, match=f"^{next(iter(wrong))} must be "):
            sigmoid_focal_loss(logits, labels, **wrong)  # type: ignore[arg-type]
    for kind in ("focal", "hinge"):
        for bad in (labels + 3, labels - 3, labels.float()):
            with pytest.raises(RequestError, match=r"^labels must be "):
                class_loss(logits, bad, LossSettings(kind=kind))  # type: ignore[arg-type]


def test_errors() -> None:
    for wrong in ({"alpha": torch.rand(2)}, {"weights": torch.rand(3, 1)}):
        ((name, tensor),) = wrong.items()
        message = f"{name} must be of the shape (3,), not {tuple(tensor.shape)}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            sigmoid_focal_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), **wrong)
    with pytest.raises(ValueError, match=r"^labels must be int64 indices \(4,\), .* \(4, 3\) .* not int64 \(5,\)$"):
        sigmoid_focal_loss(torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^gamma must be 0 or more, not -1$"):
        sigmoid_focal_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), gamma=-1)
    for label in (3, -3):
        with pytest.raises(ValueError, match=r"^labels must be from -2 to 2, found "):
            sigmoid_focal_loss(torch.zeros(2, 3), torch.tensor([label, 0 if label < 0 else -2]))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@given(cases(), GAMMAS, ALPHAS)
@settings(max_examples=60, deadline=None)
def test_one_hot_labels_as_torchvision_has_them(
    reduction: Any, case: tuple[Tensor, Tensor], gamma: float, alpha: float | None
) -> None:
    from torchvision.ops import sigmoid_focal_loss as theirs

    logits, labels = case
    logits, targets = binary_targets(logits.reshape(-1, logits.shape[-1]) / 10, labels.reshape(-1))
    mine, other = (logits.clone().requires_grad_() for _ in range(2))
    found = sigmoid_focal_loss(mine, targets, gamma, alpha, reduction=reduction)
    expected = theirs(other, targets, -1 if alpha is None else alpha, gamma, reduction)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True)
    if len(logits):
        found.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_hot_and_index_labels_are_the_same_loss(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, 40, 3, generator=generator) * 30).to(dtype)
    labels = torch.randint(-1, 3, (2, 40), generator=generator)
    one_hot = F.one_hot(labels + 1, 4)[..., 1:].to(dtype)
    weights, alpha = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.25, 0.5, 0.75])
    for balance in ((0.25, None), (None, weights), (alpha, weights)):
        fast = sigmoid_focal_loss(logits, labels, 2.0, *balance)
        for given_labels in (labels, one_hot):
            each = sigmoid_focal_loss(logits, given_labels, 2.0, *balance, reduction="none")
            assert each.shape == logits.shape
            torch.testing.assert_close(each.sum(), fast, rtol=1e-5, atol=0)
            mean = sigmoid_focal_loss(logits, given_labels, 2.0, *balance, reduction="mean")
            torch.testing.assert_close(mean, fast / logits.numel(), rtol=1e-5, atol=0)
        torch.testing.assert_close(sigmoid_focal_loss(logits, one_hot, 2.0, *balance), fast, rtol=1e-5, atol=0)


def test_rows_that_take_no_part_and_the_reductions() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, -1, -2, 2, -2, 1])
    each = sigmoid_focal_loss(logits, labels, reduction="none")
    assert (each[[2, 4]] == 0).all()
    mean = sigmoid_focal_loss(logits, labels, reduction="mean")
    torch.testing.assert_close(mean, each[labels != -2].mean())


def test_soft_targets() -> None:
    """Between 0 and 1 the formula is torchvision's too."""
    from torchvision.ops import sigmoid_focal_loss as theirs

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, dtype=torch.float64, generator=generator)
    targets = torch.rand(8, 4, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, reduction="none"), theirs(logits, targets))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(3, 3, dtype=torch.int64), r"not int64 \(3, 3\)"),
        (torch.zeros(3, 3, dtype=torch.bool), r"not bool \(3, 3\)"),
        (torch.zeros(3), r"not float32 \(3,\)"),
        (torch.zeros(3, 2), r"not float32 \(3, 2\)"),
    ],
)
def test_labels_that_are_neither_indices_nor_one_hot(labels: Tensor, words: str) -> None:
    for reduction in ("sum", "none"):
        with pytest.raises(
            RequestError, match=rf"^labels must be int64 indices \(3,\), or one-hot \(3, 3\) .*{words}$"
        ):
            sigmoid_focal_loss(torch.zeros(3, 3), labels, reduction=reduction)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="reduction must be one of sum, mean, none, not 'avg'"):
        sigmoid_focal_loss(torch.zeros(3, 3), torch.zeros(3, 3), reduction="avg")  # type: ignore[arg-type]


class Operations(TorchDispatchMode):
    """Names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_no_reduction_waits_for_a_gpu(reduction: Any, one_hot: bool) -> None:
    """Neither a number is read, nor is anything made whose size depends on values."""
    labels = torch.tensor([0, -1, -2, 2])
    given_labels = F.one_hot(labels.clamp(min=0), 3).float() if one_hot else labels
    logits = torch.randn(4, 3, requires_grad=True)
    with path(asynchronous=True), Operations() as run:
        sigmoid_focal_loss(logits, given_labels, reduction=reduction).sum().backward()
    assert not run.names & {"_local_scalar_dense", "nonzero", "masked_select", "unique", "item"}
    assert run.names
