"""The losses of one example against closed forms, written with other functions than the code uses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinanet.common.fields import SettingsError
from retinanet.config.settings import LossSettings
from retinanet.losses import ClassBalance, class_loss, sigmoid_focal_loss
from retinanet.losses.pointwise import entries, focal, focal_star, hinge, pointwise_loss

X = torch.linspace(-60, 60, 2401, dtype=torch.float64)
P = 1 / (1 + torch.exp(-X))
LOG_P = -torch.logaddexp(torch.zeros_like(X), -X)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_loss(gamma: float) -> None:
    torch.testing.assert_close(focal(X, gamma), (1 / (1 + torch.exp(X))) ** gamma * -LOG_P)


@pytest.mark.parametrize(("gamma", "beta"), [(2.0, 1.0), (4.0, 0.0), (1.0, 0.0), (0.5, -1.0)])
def test_focal_star(gamma: float, beta: float) -> None:
    wanted = torch.logaddexp(torch.zeros_like(X), -(gamma * X + beta)) / gamma
    torch.testing.assert_close(focal_star(X, gamma, beta), wanted)


def test_focal_star_with_gamma_1_and_beta_0_is_cross_entropy() -> None:
    torch.testing.assert_close(focal_star(X, 1.0, 0.0), -LOG_P)


@pytest.mark.parametrize("gamma", [2.0, 4.0])
def test_derivative_of_focal_star_is_that_of_the_paper(gamma: float) -> None:
    """Appendix B: y (p_t* - 1); here with respect to x_t, where y = 1."""
    x = X.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(focal_star(x, gamma, 1.0).sum(), x)
    torch.testing.assert_close(gradient, torch.sigmoid(gamma * X + 1.0) - 1)


def test_hinge() -> None:
    torch.testing.assert_close(hinge(X, 0.7), torch.where(P < 0.7, 0.7 - P, torch.zeros_like(P)))
    assert hinge(torch.tensor([math.log(0.71 / 0.29)]), 0.7).item() == 0


@st.composite
def cases(draw: Any) -> tuple[torch.Tensor, torch.Tensor]:
    anchors, classes = draw(st.integers(0, 30)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn((anchors, classes), generator=generator, dtype=torch.float64) * 4
    return logits, torch.randint(-2, classes, (anchors,), generator=generator)


@given(cases(), st.sampled_from([None, 0.25, 0.9]), st.sampled_from(["focal", "focal_star", "hinge"]))
def test_sum_over_entries(case: Any, alpha: float | None, kind: Any) -> None:
    logits, labels = case
    settings = LossSettings(kind=kind, alpha=alpha, gamma=1.5, star_beta=0.5, margin=0.6)
    plain = {
        "focal": lambda p, x: (1 - p) ** 1.5 * -math.log(p),
        "focal_star": lambda p, x: math.log1p(math.exp(-(1.5 * x + 0.5))) / 1.5,
        "hinge": lambda p, x: max(0.0, 0.6 - p),
    }[kind]
    wanted = 0.0
    for row, label in zip(logits.tolist(), labels.tolist()):
        for k, logit in enumerate(row):
            if label != -2:
                x = logit if k == label else -logit
                weight = 1.0 if alpha is None else alpha if k == label else 1 - alpha
                wanted += weight * plain(1 / (1 + math.exp(-x)), x)
    assert class_loss(logits, labels, settings).item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    found = entries(logits, labels, pointwise_loss(settings), alpha)
    assert found.shape == logits.shape
    assert (found[labels == -2] == 0).all()


@given(cases(), st.booleans(), st.sampled_from(["focal", "focal_star", "hinge"]))
def test_classes_with_alpha_and_weight_of_their_own(case: Any, with_alphas: bool, kind: Any) -> None:
    """A weighted sum of what each class gives alone, with its own alpha."""
    logits, labels = case
    classes = logits.shape[1]
    alphas, weights = torch.linspace(0.1, 1, classes).double(), torch.arange(classes).double()
    settings = LossSettings(kind=kind, gamma=1.5, alpha=0.4)
    found = class_loss(logits, labels, settings, ClassBalance(alphas if with_alphas else 0.4, weights))
    wanted = torch.zeros((), dtype=torch.float64)
    for k in range(classes):
        alone = torch.where(labels == k, 0, labels.clamp(max=-1))
        one = LossSettings(kind=kind, gamma=1.5, alpha=float(alphas[k]) if with_alphas else 0.4)
        wanted += float(weights[k]) * class_loss(logits[:, k : k + 1], alone, one)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


@given(cases())
def test_entries_of_the_focal_loss_add_up_to_the_fused_one(case: Any) -> None:
    logits, labels = case
    total = entries(logits, labels, pointwise_loss(LossSettings()), 0.25).sum()
    torch.testing.assert_close(total, sigmoid_focal_loss(logits, labels))


def test_focal_star_without_gamma_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"loss\.gamma must be above 0"):
        LossSettings(kind="focal_star", gamma=0.0)
