"""3 x 3 convolutions in float32 with a quarter of the multiplications.

Winograd's minimal filtering F(4 x 4, 3 x 3), after Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks":
a tile of 4 x 4 results comes from 36 products per pair of channels instead of 144. With 128 channels and more those
products, 36 ordinary matrix multiplications, outweigh the transforms around them.

Rounding errors are some ten times those of the direct sum: 2e-5 of the largest value instead of 2e-6. In bfloat16 that
would be too much, and CPUs that multiply in bfloat16 are fast enough without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TILE = 4
WINDOW = TILE + 2  # the side of the input that a tile of results depends on
POINTS = WINDOW * WINDOW
CHANNELS = 128  # fewer inputs or outputs, and the transforms cost more than they save
TILES = 256  # computed at once, so that the transformed tiles stay in the CPU's cache

# The transforms of input, weights and output in one dimension (Lavin and Gray, section 4.3).
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def _both(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """The transform of rows and columns as one matrix for flattened windows."""
    matrix = torch.tensor(transform, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


def fits(conv: nn.Conv2d) -> bool:
    """Whether this convolution can be computed this way, and becomes faster."""
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    return geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and min(conv.in_channels, conv.out_channels) >= CHANNELS


class WinogradConvolution(nn.Module):
    """A 3 x 3 convolution of stride 1 with padding 1, with an optional addition and an optional ReLU.

    Args:
        weight: (K, C, 3, 3). bias: (K,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__()
        transform = torch.tensor(WEIGHT, dtype=torch.float64)
        weight = torch.einsum("ia,kcab,jb->ijck", transform, weight.detach().double(), transform)
        self.weight = weight.reshape(POINTS, *weight.shape[2:]).float()  # (36, C, K)
        self.bias = None if bias is None else bias.detach().float()
        self.relu = relu
        self.input, self.output = _both(INPUT), _both(OUTPUT)  # (36, 36), (16, 36)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, C, H, W) float32 -> (B, K, H, W), channels last in memory; ``other`` of that shape is added.

        Rows and columns are spaced for whole tiles: dense only where H and W are multiples of 4.
        """
        batch, channels, height, width = x.shape
        outputs = self.weight.shape[2]
        down, across = -(-height // TILE), -(-width // TILE)
        padded = x.new_zeros((batch, TILE * down + 2, TILE * across + 2, channels))
        padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
        image, row, column, _ = padded.stride()
        result = x.new_empty((batch, TILE * down, TILE * across, outputs))

        images = max(1, TILES // (down * across))
        rows = max(1, min(down, TILES // across))
        for first in range(0, batch, images):
            count = min(images, batch - first)
            for top in range(0, down, rows):
                high = min(rows, down - top)
                tiles = count * high * across
                windows = padded.as_strided(
                    (WINDOW, WINDOW, count, high, across, channels),
                    (row, column, image, TILE * row, TILE * column, 1),
                    first * image + top * TILE * row,
                )
                points = torch.mm(self.input, windows.reshape(POINTS, -1)).view(POINTS, tiles, channels)
                products = torch.bmm(points, self.weight)  # (36, tiles, K)
                values = torch.mm(self.output, products.view(POINTS, -1))
                values = values.view(TILE, TILE, count, high, across, outputs).permute(2, 3, 0, 4, 1, 5)
                if self.bias is not None:
                    values += self.bias
                if self.relu and other is None:
                    values.relu_()
                target = result[first : first + count, TILE * top : TILE * (top + high)]
                target.view(count, high, TILE, across, TILE, outputs).copy_(values)
        result = result[:, :height, :width].permute(0, 3, 1, 2)
        if other is not None:
            result += other
            if self.relu:
                result.relu_()
        return result
