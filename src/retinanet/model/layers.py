"""The one building block of pyramid and heads: a convolution, optionally with a normalisation."""

from __future__ import annotations

import math

from torch import Tensor, nn

from retinanet.config.bounds import Normalization


class Convolution(nn.Module):
    """kernel x kernel convolution with the paper's initialisation (Gaussian, sigma 0.01, bias 0), then ``norm``.

    A normalised convolution has no bias of its own unless ``norm_bias`` is set. ``levels`` above 1 keeps one
    batch normalisation per pyramid level: the levels share the convolution, but not their statistics.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: Normalization = "none",
        stride: int = 1,
        levels: int = 1,
        norm_bias: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "none" or norm_bias
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
        nn.init.normal_(self.conv.weight, std=0.01)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = nn.ModuleList()
        if norm == "group":
            # 32 groups, fewer where a group would hold less than 4 channels: in a 1 x 1 feature one channel alone is
            # always normalised to 0.
            self.norm.append(nn.GroupNorm(math.gcd(32, max(1, outputs // 4), outputs), outputs))
        elif norm == "batch":
            self.norm.extend(nn.BatchNorm2d(outputs) for _ in range(levels))

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        x = self.conv(x)
        if len(self.norm):
            x = self.norm[level if len(self.norm) > 1 else 0](x)
        return x
