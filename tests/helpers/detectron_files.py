"""Random RetinaNets in the form of Detectron's files: blobs, configuration, pickle."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

SIZE, LONGER = 200, 333
MEANS = (102.9801, 115.9465, 122.7717)  # B, G, R
# As Python 2 dumped it, with what is not read here left out.
CFG = f"""!!python/object/new:utils.collections.AttrDict
dictitems:
  BBOX_XFORM_CLIP: !!python/object/apply:numpy.core.multiarray.scalar
  - &id001 !!python/object/apply:numpy.dtype
    args: [f8, 0, 1]
    state: !!python/tuple [3, <, null, null, null, -1, -1, 0]
  - !!binary |
    qeISGmmKEEA=
  FPN: !!python/object/new:utils.collections.AttrDict
    dictitems: {{COARSEST_STRIDE: 128, EXTRA_CONV_LEVELS: true, RPN_MAX_LEVEL: 7, RPN_MIN_LEVEL: 3}}
    state: &id002 {{__immutable__: true}}
  MODEL: !!python/object/new:utils.collections.AttrDict
    dictitems: {{NUM_CLASSES: 81, TYPE: !!python/unicode 'retinanet'}}
    state: *id002
  PIXEL_MEANS: !!python/object/apply:numpy.core.multiarray._reconstruct
    args:
    - !!python/name:numpy.ndarray ''
    - !!python/tuple [0]
    - b
    state: !!python/tuple
    - 1
    - !!python/tuple [1, 1, 3]
    - *id001
    - false
    - !!binary |
      0LNZ9bm+WUB/arx0k/xcQK+UZYhjsV5A
  RETINANET: !!python/object/new:utils.collections.AttrDict
    dictitems:
      ANCHOR_SCALE: 4
      ASPECT_RATIOS: !!python/tuple [1.0, 2.0, 0.5]
      SCALES_PER_OCTAVE: 3
      SOFTMAX: false
    state: *id002
  TEST: !!python/object/new:utils.collections.AttrDict
    dictitems:
      MAX_SIZE: {LONGER}
      NMS: 0.5
      SCALES: !!python/tuple [{SIZE}]
      WEIGHTS: !!python/str 'a/b.pkl'
    state: *id002
state: *id002
"""


def random_blobs(depth: int, groups: int = 1, width: int = 64) -> dict[str, np.ndarray]:
    """Every blob of a RetinaNet; the gains keep activations sane and let every level but P7 have scores above 0.05."""
    random = torch.Generator().manual_seed(depth + groups)
    blobs: dict[str, Tensor] = {}

    def conv(name: str, out: int, inside: int, kernel: int, gain: float = 1.0, bias: bool = True) -> None:
        weight = torch.randn(out, inside, kernel, kernel, generator=random)
        blobs[f"{name}_w"] = weight * gain / (inside * kernel * kernel) ** 0.5
        if bias:
            blobs[f"{name}_b"] = torch.randn(out, generator=random) * 0.1

    def affine(name: str, size: int, gain: float) -> None:
        blobs[f"{name}_s"] = (torch.rand(size, generator=random) * 0.6 + 0.7) * gain
        blobs[f"{name}_b"] = torch.randn(size, generator=random) * 0.1

    conv("conv1", 64, 3, 7, bias=False)
    affine("res_conv1_bn", 64, 0.02)
    channels = 64
    stages = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    for stage, count in enumerate(stages, start=2):
        inner, outer = groups * width * 2 ** (stage - 2), 2 ** (stage + 6)
        for block in range(count):
            name = f"res{stage}_{block}_branch"
            if block == 0:
                conv(f"{name}1", outer, channels, 1, bias=False)
                affine(f"{name}1_bn", outer, 1.0)
            for branch, out, inside, kernel, gain in (
                ("2a", inner, channels, 1, 1.4),
                ("2b", inner, inner // groups, 3, 1.4),
                ("2c", outer, inner, 1, 0.4 if depth == 50 else 0.2),
            ):
                conv(name + branch, out, inside, kernel, bias=False)
                affine(f"{name}{branch}_bn", out, gain)
            channels = outer
    for level, count in zip((3, 4, 5), stages[1:]):
        last = f"res{level}_{count - 1}_sum"
        conv(f"fpn_inner_{last}" + ("_lateral" if level < 5 else ""), 256, 2 ** (level + 6), 1)
        conv(f"fpn_{last}", 256, 256, 3, gain={3: 0.9, 4: 1.6, 5: 3.0}[level])
    conv("fpn_6", 256, 2048, 3, gain=4.0)
    conv("fpn_7", 256, 256, 3, gain=3.0)
    for kind in ("cls", "bbox"):
        for index in range(4):
            conv(f"retnet_{kind}_conv_n{index}_fpn3", 256, 256, 3, gain=1.4)
    conv("retnet_cls_pred_fpn3", 720, 256, 3, gain=2.0)
    conv("retnet_bbox_pred_fpn3", 36, 256, 3, gain=0.15)
    blobs["retnet_cls_pred_fpn3_b"] = torch.randn(720, generator=random) * 0.7 - 14.5
    blobs["retnet_bbox_pred_fpn3_b"] = torch.randn(36, generator=random) * 0.3
    # What the zoo's files hold beside the network.
    blobs["conv1_b"] = torch.ones(64)
    blobs["fc1000_b"] = torch.ones(1000)
    blobs["fpn_7_b_momentum"] = torch.ones(256)
    return {name: blob.numpy() for name, blob in blobs.items()}


def pickled(blobs: dict[str, np.ndarray], cfg: str) -> bytes:
    """{"blobs": {...}, "cfg": ...} as Python 2 wrote it, with strings of bytes and numpy under its old name."""

    def text(value: str | bytes) -> bytes:
        data = value.encode() if isinstance(value, str) else value
        return b"T" + len(data).to_bytes(4, "little") + data

    def whole(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def array(blob: np.ndarray) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN" + whole(-1) + whole(-1) + b"K\x00tb"
        shape = b"(" + b"".join(whole(side) for side in blob.shape) + b"t"
        return made + b"(K\x01" + shape + dtype + b"\x89" + text(blob.astype("<f4").tobytes()) + b"tb"

    items = b"".join(text(name) + array(blob) for name, blob in blobs.items())
    return b"\x80\x02}(" + text("blobs") + b"}(" + items + b"u" + text("cfg") + text(cfg) + b"u."


@functools.cache
def resnet_blobs() -> dict[str, np.ndarray]:
    """Those of a ResNet-50; shared, do not write into them."""
    return random_blobs(50)
