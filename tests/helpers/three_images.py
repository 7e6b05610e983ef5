"""Three images with anchors, boxes and outputs, for tests of what is summed over a batch."""

from __future__ import annotations

import torch

from retinanet.config.settings import AnchorSettings
from retinanet.model import Outputs
from retinanet.ops.anchors import make_anchors

CLASSES = 3
ANCHORS = make_anchors(AnchorSettings(), 64, 96, torch.device("cpu"))
BOXES = [torch.tensor([[4.0, 4, 40, 40], [10, 20, 90, 60]]), torch.zeros((0, 4)), torch.tensor([[30.0, 0, 64, 64]])]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]


def outputs(dtype: torch.dtype = torch.float32) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    return Outputs(
        *(
            [torch.randn((3, len(a), n), generator=generator).to(dtype).requires_grad_() for a in ANCHORS]
            for n in (CLASSES, 4)
        )
    )
