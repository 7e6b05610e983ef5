"""Alpha and weights of classes by their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings
from retinanet.losses import class_balance, class_loss

CELLS = ("RBC", "WBC", "Platelets")


def test_what_is_not_named_takes_the_common_values() -> None:
    plain = class_balance(LossSettings(alpha=0.3), CELLS)
    assert (plain.alpha, plain.weights) == (0.3, None)

    own = class_balance(LossSettings(alpha=0.3, alphas={"WBC": 0.75}), CELLS)
    assert torch.equal(torch.as_tensor(own.alpha), torch.tensor([0.3, 0.75, 0.3]))
    assert own.weights is None

    own = class_balance(LossSettings(alpha=0.3, class_weights={"Platelets": 2, "RBC": 0}), CELLS)
    assert own.alpha == 0.3
    assert own.weights is not None
    assert own.weights.tolist() == [0, 1, 2]


def test_an_alpha_of_one_class_beside_none_for_the_others() -> None:
    settings = LossSettings(alpha=None, alphas={"WBC": 0.75}, class_weights={"RBC": 3.0, "WBC": 0.5})
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 3), torch.randint(-2, 3, (50,))
    wanted = 0.0
    for k, (alpha, weight) in enumerate(((None, 3.0), (0.75, 0.5), (None, 1.0))):
        alone = torch.where(labels == k, 0, labels.clamp(max=-1))
        wanted += weight * class_loss(logits[:, k : k + 1], alone, LossSettings(alpha=alpha)).item()
    assert class_loss(logits, labels, settings, class_balance(settings, CELLS)).item() == pytest.approx(
        wanted, rel=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        ({"alphas": {"platelet": 0.5}}, CELLS, "loss.alphas: the data set has no class 'platelet'; did you mean "
         "'Platelets'?"),
        ({"class_weights": {"wbc": 2.0}}, CELLS, "loss.class_weights: the data set has no class 'wbc'; did you mean "
         "'WBC' or 'RBC'?"),
        ({"class_weights": {"dog": 2.0}}, CELLS, "loss.class_weights: the data set has no class 'dog'; they are RBC, "
         "WBC, Platelets"),
        ({"alphas": {"dog": 0.5}}, [str(n) for n in range(90)], "loss.alphas: the data set has no class 'dog'; they "
         "are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19 and 70 more"),
    ],
)  # fmt: skip
def test_a_name_that_the_data_does_not_have(changes: Any, names: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        class_balance(LossSettings(**changes), names)
    assert str(caught.value) == message
