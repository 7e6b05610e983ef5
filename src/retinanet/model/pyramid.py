"""The feature pyramid network: C3, C4, C5 -> P3 ... P7 (section 4, "Feature Pyramid Network Backbone")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.config import PyramidSettings
from retinanet.model.layers import Convolution


class FeaturePyramid(nn.Module):
    """Five maps of ``settings.channels`` channels at strides 8, 16, 32, 64 and 128.

    P3-P5 are a 1 x 1 lateral convolution, plus the coarser level doubled in size, then a 3 x 3 convolution; P6 is a
    3 x 3 convolution of stride 2 on C5 (or P5), P7 the same on ReLU(P6).
    """

    def __init__(self, in_channels: Sequence[int], settings: PyramidSettings) -> None:
        super().__init__()
        channels, norm = settings.channels, settings.norm
        self.lateral = nn.ModuleList(Convolution(c, channels, 1, norm) for c in in_channels)
        self.output = nn.ModuleList(Convolution(channels, channels, 3, norm) for _ in in_channels)
        self.p6_from = settings.p6_from
        self.p6 = Convolution(in_channels[-1] if self.p6_from == "c5" else channels, channels, 3, norm, stride=2)
        self.p7 = Convolution(channels, channels, 3, norm, stride=2)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        merged = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for finer in (1, 0):
            # Sizes rather than a factor of 2: an input that is no multiple of 32 has odd levels.
            size = features[finer].shape[-2:]
            merged[finer] = merged[finer] + F.interpolate(merged[finer + 1], size=size, mode="nearest")
        levels = [output(m) for output, m in zip(self.output, merged, strict=True)]
        p6 = self.p6(features[-1] if self.p6_from == "c5" else levels[-1])
        return [*levels, p6, self.p7(F.relu(p6))]
