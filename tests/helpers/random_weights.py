"""Weights for tests that do not train: random ones, whose scores spread over 0..1."""

from collections.abc import Iterable

from torch import nn

from retinanet.model import RetinaNet


def scatter(
    model: RetinaNet, classes: float, boxes: float | None, bias: float, also: Iterable[nn.Module] = ()
) -> RetinaNet:
    """Change the pyramid's weights and those of ``also``, and the last layers of the subnets.

    Args:
        classes, boxes: standard deviation of the weights of each subnet's last layer; None leaves it as it is.
        bias: of the class scores.
    """
    for layer in (*model.pyramid.modules(), *also):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    for subnet, std in ((model.class_subnet, classes), (model.box_subnet, boxes)):
        if std is not None:
            nn.init.normal_(subnet.output.weight, std=std)
    assert model.class_subnet.output.bias is not None
    nn.init.constant_(model.class_subnet.output.bias, bias)
    return model
