"""The class and the box subnet (section 4, "Classification Subnet" and "Box Regression Subnet")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.config.model_settings import HeadSettings
from retinanet.model.layers import Convolution
from retinanet.ops import boxes as geometry


class Subnet(nn.Module):
    """``depth`` convolutions 3 x 3 with ReLU, then one to ``anchors * values`` outputs; shared by all levels.

    ``bias`` is that of the last convolution. For class logits it is -log((1 - pi) / pi): every anchor starts with
    probability pi, without which the mass of background anchors would blow up the first steps (section 3.3).
    The outputs of an anchor are multiplied by ``factors``, if there are any.
    """

    def __init__(
        self,
        inputs: int,
        settings: HeadSettings,
        anchors: int,
        values: int,
        levels: int,
        bias: float = 0.0,
        factors: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.values, self.factors = values, factors
        widths = [inputs] + [settings.width] * settings.depth
        self.tower = nn.ModuleList(
            Convolution(a, b, 3, settings.norm, levels=levels, norm_bias=settings.norm_bias)
            for a, b in pairwise(widths)
        )
        self.output = nn.Conv2d(widths[-1], anchors * values, 3, padding=1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.constant_(self.output.bias, bias)  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Per level (B, C, h, w) -> (B, h * w * anchors, values), rows in the order of the anchors."""
        results = []
        for level, x in enumerate(levels):
            for layer in self.tower:
                x = F.relu(layer(x, level), inplace=True)
            x = self.output(x)
            # In channels-last memory this is a view, not a copy.
            x = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)
            if self.factors is not None:
                x = geometry.multiplied(x, self.factors)
            results.append(x)
        return results


def class_subnet(inputs: int, settings: HeadSettings, anchors: int, num_classes: int, levels: int = 5) -> Subnet:
    return Subnet(inputs, settings, anchors, num_classes, levels, bias=-math.log((1 - settings.prior) / settings.prior))


def box_subnet(inputs: int, settings: HeadSettings, anchors: int, levels: int = 5) -> Subnet:
    factors = [1 / weight for weight in settings.box_weights]
    return Subnet(inputs, settings, anchors, 4, levels, factors=None if factors == [1.0] * 4 else factors)
