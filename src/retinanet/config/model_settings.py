"""The settings of a model: network, anchors, and what happens to images before it and to boxes after it.

The docstring of a setting is its help text. The defaults are those of the paper (Lin et al., 2017, section 4) unless a
comment says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from retinanet.common.arguments import Nms
from retinanet.common.fields import Section, Within, require, require_small
from retinanet.config.bounds import Fraction, Interpolation, Mean, Normalization, Pixels, Positive, Score, Std, Width

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three scales within an octave (section 4, "Anchors")


@dataclass(frozen=True)
class BackboneSettings(Section, where="model.backbone"):
    """The feature extractor: any timm model that gives features at strides 8, 16 and 32."""

    name: str = "resnet50"
    """Name of a timm model, such as resnet18, resnext101_32x8d, mobilenetv2_100 or convnext_tiny."""
    weights: str = "none"
    """Pretrained weights: "none", "imagenet" (downloaded by timm), or the path of a weight file in timm's layout."""
    frozen_stages: Annotated[int, Within(0, 1000)] = 0
    """Number of leading stages that are not trained. In a ResNet, 1 freezes the stem, 2 also the first stage."""
    frozen_norm: bool = False
    """Freeze batch normalization: its weights and its running statistics stay as they are."""
    norm_eps: Fraction | None = None
    """Epsilon of batch normalization. none takes the backbone's own, 1e-5 in a ResNet."""
    stride_in_1x1: bool = False
    """Put the stride of a ResNet bottleneck in its first 1 x 1 convolution, not in the 3 x 3 one. Caffe's ResNets do
    so: Detectron, Detectron2, MMDetection's "caffe" models."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, such as {"pad_type": "same"}. Numbers are limited to 10 000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            re.fullmatch(r"\w+(\.\w+)?", self.name) is not None,  # timm would download a model from a URL
            f"model.backbone.name must be the name of a timm model, such as resnet50, not {self.name!r}",
        )
        require_small(self.options, "model.backbone.options")


@dataclass(frozen=True)
class PyramidSettings(Section, where="model.pyramid"):
    """The feature pyramid. Its levels are those that have anchors (``model.anchors``)."""

    channels: Width = 256
    """Channels of every pyramid level."""
    p6_from: Literal["c5", "p5"] = "c5"
    """Input of P6. The paper takes C5, the last feature of the backbone; torchvision's first RetinaNet takes P5."""
    p7_relu: bool = True
    """Apply ReLU to P6 before computing P7, as in the paper. MMDetection does not."""
    norm: Normalization = "none"
    """Normalization after each convolution of the pyramid."""


@dataclass(frozen=True)
class HeadSettings(Section, where="model.head"):
    """The class and box subnets. They have the same shape and separate weights, and all pyramid levels share them."""

    depth: Annotated[int, Within(0, 64)] = 4
    """Number of hidden convolutions in each subnet."""
    width: Width = 256
    """Channels of the hidden convolutions."""
    norm: Normalization = "none"
    """Normalization after each hidden convolution. With "group" a detector trains from scratch."""
    norm_bias: bool = False
    """Give convolutions before a normalization a bias too, as in Detectron2's heads."""
    box_weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    """Factors on the predicted dx, dy, dw and dh: Detectron2's BBOX_REG_WEIGHTS."""
    prior: Annotated[float, Within(0, 1, above=True, below=True)] = 0.01
    """Initial probability of every class at every anchor (section 3.3)."""


@dataclass(frozen=True)
class AnchorSettings(Section, where="model.anchors"):
    """The anchor boxes of every pyramid level. RetinaNets differ in these conventions."""

    sizes: tuple[Positive, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Base size in pixels, one number for each pyramid level. An anchor of scale 1 has the area size * size."""
    first_level: Annotated[int, Within(2, 5)] = 3
    """The finest pyramid level. The paper takes 3 (stride 8). Level 2 (stride 4) finds smaller objects, at four times
    the cost of level 3."""
    scales: tuple[Positive, ...] = OCTAVES
    """Factors on the base size."""
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    """Aspect ratios: height divided by width."""
    offset: Annotated[float, Within(-100, 100)] = 0.5
    """Center of the first anchor, in strides. 0.5 is the middle of the cell; torchvision uses 0."""
    rounding: Literal["none", "torchvision", "detectron"] = "none"
    """How anchor sides are rounded. "torchvision" truncates size * scale to an integer, and rounds half the sides.
    "detectron" rounds the sides of the stride-sized anchors, then scales them."""
    strides: Literal["fixed", "torchvision"] = "fixed"
    """Strides of the anchors. "fixed" takes 8, 16, 32, 64, 128. "torchvision" divides the side of the padded image by
    that of the feature map, rounded down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.sizes) <= 8 - self.first_level,
            f"model.anchors.sizes has {len(self.sizes)} numbers, but from P{self.first_level} to P7 there are "
            f"{8 - self.first_level} levels",
        )
        for name in ("sizes", "scales", "ratios"):
            count = len(getattr(self, name))
            require(1 <= count <= 64, f"model.anchors.{name} needs from 1 to 64 numbers, not {count}")

    @property
    def per_position(self) -> int:
        return len(self.scales) * len(self.ratios)

    @property
    def levels(self) -> range:
        """The numbers of the pyramid levels; level l has the stride 2 ** l."""
        return range(self.first_level, self.first_level + len(self.sizes))


@dataclass(frozen=True)
class PreprocessingSettings(Section, where="model.preprocessing"):
    """How an image becomes the input of the network."""

    resize: Literal["shorter", "square", "none"] = "shorter"
    """How an image is resized; its aspect ratio is kept. "shorter": the shorter side becomes ``size``, the longer at
    most ``longer``. "square": the longer side becomes ``size``, and the image is padded to a square."""
    size: Annotated[int, Within(1, 8192)] = 800
    """Resize images to this many pixels, mostly the shorter side. The setting ``resize`` chooses the side."""
    longer: Pixels = 1333
    """Limit of the longer side in pixels, with resize "shorter"."""
    rounding: Literal["nearest", "down", "detectron", "detectron2"] = "nearest"
    """How the other side is rounded to whole pixels. "down" is torchvision's way. "detectron" rounds to the nearest,
    but scales boxes by the unrounded factor. "detectron2" limits the longer side after scaling, which rounds some
    halves differently."""
    interpolation: Interpolation = "antialias"
    """How pixels are interpolated. "antialias" is bilinear and averages when an image shrinks. "pillow" is the same by
    Pillow itself: slower, and different by 1 in one value of a thousand. Two do not average: "plain" is bilinear in
    floating point, as in torchvision; "opencv" is bilinear in OpenCV's integers."""
    mean: tuple[Mean, Mean, Mean] | None = None
    """Mean of R, G and B, in 0..1. none takes the backbone's own."""
    std: tuple[Std, Std, Std] | None = None
    """Standard deviation of R, G and B, in 0..1. none takes the backbone's own."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels in the network's input. ``mean`` and ``std`` always stay in the order R, G, B."""
    multiple: Annotated[int, Within(32, 1024)] = 32
    """Pad both sides of a batch to a multiple of this. Zeros are added right and below, after normalization."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.resize != "shorter" or self.longer >= self.size,
            f"model.preprocessing.longer ({self.longer}) is below model.preprocessing.size ({self.size})",
        )
        require(
            self.multiple % 32 == 0,
            f"model.preprocessing.multiple must be a multiple of 32 (the stride of C5), not {self.multiple}",
        )


@dataclass(frozen=True)
class PostprocessingSettings(Section, where="model.postprocessing"):
    """How logits and deltas become detections (section 4.1, "Inference")."""

    threshold: Score = 0.05
    """Drop detections with a score at or below this."""
    candidates: Annotated[int, Within(1, 1e6)] = 1000
    """Decode at most this many (anchor, class) pairs of each level, the highest-scoring first."""
    nms_iou: Fraction = 0.5
    """IoU threshold of non-maximum suppression. Of two boxes that overlap by more, the one with the lower score is
    dropped; see ``nms``."""
    max_detections: Annotated[int, Within(1, 1e6)] = 100
    """Keep at most this many detections of an image."""
    nms: Nms = "class"
    """Which boxes compete in non-maximum suppression: those of one class, as in the paper, or with "agnostic" all, so
    that an object has one label."""
    coarsest_threshold: Score | None = None
    """Score threshold of the coarsest level, if it differs from ``threshold``. Detectron uses 0."""
    limit_shrinking: bool = False
    """Limit dw and dh from below too: a box gets no smaller than 1/62.5 of the anchor's side. MMDetection does so;
    others limit them only from above."""
    clip: Literal["before", "after"] = "before"
    """Clip boxes to the image before or after suppression. Detectron2 does so after."""
    drop_empty: bool = False
    """Drop boxes that have no width or height after clipping, as Detectron2 and MMDetection do."""
    inclusive: bool = False
    """Treat x2 and y2 as the last pixel inside the box, as Detectron does when it rescales and clips. Detections still
    have x2 = x1 + width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.clip == "before" or not self.inclusive,
            "model.postprocessing.inclusive needs model.postprocessing.clip before, as in Detectron",
        )


@dataclass(frozen=True)
class ModelSettings(Section, where="model"):
    """Everything that a checkpoint needs to give the same boxes anywhere."""

    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    pyramid: PyramidSettings = field(default_factory=PyramidSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    preprocessing: PreprocessingSettings = field(default_factory=PreprocessingSettings)
    postprocessing: PostprocessingSettings = field(default_factory=PostprocessingSettings)
