"""The feature pyramid network: C3, C4, C5 -> P3 ... P7 (section 4, "Feature Pyramid Network Backbone")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.config.model_settings import PyramidSettings
from retinanet.model.backbone import LAST_LEVEL
from retinanet.model.layers import Convolution
from retinanet.ops.anchors import PAPER_LEVELS


class FeaturePyramid(nn.Module):
    """Maps of ``settings.channels`` channels, one for each of ``levels``; level l has the stride 2 ** l.

    Up to P5 they are a 1 x 1 lateral convolution, plus the coarser level doubled in size, then a 3 x 3 convolution; P6
    is a 3 x 3 convolution of stride 2 on C5 (or P5), P7 the same on ReLU(P6).

    Args:
        in_channels: of the backbone's features, from that of the first level to C5.
        levels: P3 to P7 in the paper. Context comes down from C5 even where P5 is not among them.
    """

    def __init__(self, in_channels: Sequence[int], settings: PyramidSettings, levels: range = PAPER_LEVELS) -> None:
        super().__init__()
        channels, norm = settings.channels, settings.norm
        self.levels = levels
        # By the level's number, so that a weight has the same name whatever other levels there are.
        inputs = dict(zip(range(levels[0], LAST_LEVEL + 1), in_channels, strict=True))
        self.lateral = nn.ModuleDict({str(level): Convolution(c, channels, 1, norm) for level, c in inputs.items()})
        self.output = nn.ModuleDict(
            {str(level): Convolution(channels, channels, 3, norm) for level in inputs if level in levels}
        )
        self.p6_from, self.p7_relu = settings.p6_from, settings.p7_relu
        if levels[-1] >= 6:
            self.p6 = Convolution(in_channels[-1] if self.p6_from == "c5" else channels, channels, 3, norm, stride=2)
        if levels[-1] >= 7:
            self.p7 = Convolution(channels, channels, 3, norm, stride=2)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged = [lateral(feature) for lateral, feature in zip(self.lateral.values(), features, strict=True)]
        for finer in reversed(range(len(merged) - 1)):
            # Sizes rather than a factor of 2: an input that is no multiple of 32 has odd levels.
            size = features[finer].shape[-2:]
            merged[finer] = merged[finer] + F.interpolate(merged[finer + 1], size=size, mode="nearest")
        maps = [output(m) for output, m in zip(self.output.values(), merged)]
        if self.levels[-1] >= 6:
            maps.append(self.p6(features[-1] if self.p6_from == "c5" else maps[-1]))
        if self.levels[-1] >= 7:
            maps.append(self.p7(F.relu(maps[-1]) if self.p7_relu else maps[-1]))
        return maps
