"""Options that several commands have, with one help text each, and the groups of ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from retinanet.common.arguments import Nms

OPTIONS = Group("Options", sort_key=(-2, ""))
"""What ``--help`` shows. All other groups are for ``--help-all``."""
MORE = Group("More options", sort_key=(-1, ""))
COMMON = Group("Options of every command", sort_key=(-1, "z"))

Device = Annotated[
    str | None,
    Parameter(
        metavar="DEVICE",
        help="Where to compute: cpu, mps, cuda, or the number of a GPU such as 0. [default: a GPU if there is one]",
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"] | None,
    Parameter(
        group=MORE,
        help='Number format of the network. "auto" is bf16 if the hardware multiplies in it, else fp32. '
        "[default: auto for models of this project, fp32 for those of others, so that their boxes stay the same]",
    ),
]
"""As ``retinanet.load`` takes it, which is not imported for ``--help``."""
Trust = Annotated[
    bool,
    Parameter(
        group=MORE,
        negative=(),
        show_default=False,
        help="Load an exported PyTorch program (.pt2) too. It can run any code on this machine; other files cannot.",
    ),
]
NmsOption = Annotated[
    Nms | None,
    Parameter(
        name="--nms",
        group=MORE,
        help='"agnostic" lets boxes of all classes suppress each other, so that an object has one label. "class" lets '
        "only boxes of one class. [default: the model's own, mostly class]",
    ),
]
BatchSize = Annotated[int, Parameter(group=MORE, help="Images of one forward pass.")]
Strict = Annotated[
    bool,
    Parameter(
        group=MORE,
        negative=(),
        show_default=False,
        help="Refuse a data set with any fault. Without this, faults are repaired or left out, and reported.",
    ),
]
MaxPixels = Annotated[
    int | None,
    Parameter(
        group=MORE,
        help="Leave out images with more pixels. Decoding takes about 7 bytes a pixel. "
        "[default: RETINANET_MAX_PIXELS of the environment, else 178956970]",
    ),
]

Model = Annotated[
    str,
    Parameter(
        help="A run folder (its best checkpoint), a checkpoint file of this or another project, an https URL, "
        "user/name on the Hugging Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's."
    ),
]
Data = Annotated[
    Path,
    Parameter(
        help="A folder of labelled images (its layout is recognized by its files), or the YAML file of a YOLO one."
    ),
]
