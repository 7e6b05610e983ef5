"""Every setting of the project as typed dataclasses.

YAML recipes, command-line options, ``--help`` and the settings in a checkpoint are all made from these classes. The
docstring of a setting is its help text. Nothing heavy is imported here, so that the command line starts fast.

The defaults are those of the paper (Lin et al., 2017, sections 4 and 5) unless a comment says otherwise.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from retinanet.common.fields import Section, SettingsError, Within, from_plain, require, require_small, shown

__all__ = ["Settings", "SettingsError", "changed", "dotted", "from_plain", "require", "seconds", "to_plain"]

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three scales within an octave (section 4, "Anchors")

Normalization = Literal["none", "batch", "group"]
Interpolation = Literal["antialias", "pillow", "plain", "opencv"]

Fraction = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0, 1e6, above=True)]
NotNegative = Annotated[float, Within(0, 1e6)]
Score = Annotated[float, Within(0, 1, below=True)]
Mean = Annotated[float, Within(-1000, 1000)]
Std = Annotated[float, Within(1e-6, 1000)]
"""A smaller divisor would make pixels infinite in float16."""
Zoom = Annotated[float, Within(0.01, 100)]
Count = Annotated[int, Within(1, 1e9)]
Width = Annotated[int, Within(1, 8192)]
"""Channels of a convolution."""
Pixels = Annotated[int, Within(1, 16384)]
"""Side of an image. An image of 8192 x 16384 takes 1.6 GB as float32."""


# ---------------------------------------------------------------------------------------------------- the model


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
    """Side in pixels that an image is resized to; see ``resize``."""
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
    """IoU threshold of non-maximum suppression. Of two boxes of one class that overlap by more, the one with the lower
    score is dropped."""
    max_detections: Annotated[int, Within(1, 1e6)] = 100
    """Keep at most this many detections of an image."""
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


# ------------------------------------------------------------------------------------------ the loss and the data


@dataclass(frozen=True)
class MatchingSettings(Section, where="matching"):
    """How anchors are assigned to boxes (section 4, "Anchors")."""

    foreground: Fraction = 0.5
    """Assign an anchor to a box if their IoU is at least this."""
    background: Fraction = 0.4
    """Treat an anchor as background if its IoU with every box is below this. Anchors between the two thresholds are
    ignored."""
    low_quality: bool = False
    """Assign the best anchor of each box too, at any IoU above 0, as torchvision and Detectron2 do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.background <= self.foreground,
            "matching needs 0 <= background <= foreground <= 1, not "
            f"background {self.background} and foreground {self.foreground}",
        )


@dataclass(frozen=True)
class OhemSettings(Section, where="loss.ohem"):
    """Online hard example mining, which the paper compares the focal loss with (section 5.1, table 1d)."""

    batch: Count | None = None
    """Number of anchors of an image that enter the class loss: those with the largest loss. none takes all."""
    nms: Fraction = 0.7
    """Before that, drop an anchor that overlaps one with a larger loss by more than this IoU. 1 drops none."""
    negatives: Positive | None = None
    """Limit of background anchors for each positive one; 3 in the paper. none sets no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.batch is not None or self.negatives is None,
            "loss.ohem.negatives limits the anchors of loss.ohem.batch: give both",
        )


@dataclass(frozen=True)
class LossSettings(Section, where="loss"):
    """Class loss FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t) (section 3), and box loss on positive anchors."""

    kind: Literal["focal", "focal_star", "hinge"] = "focal"
    """Class loss. "focal_star" is -log(sigmoid(gamma x_t + star_beta)) / gamma (appendix A). "hinge" is
    max(0, margin - p_t)."""
    gamma: Annotated[float, Within(0, 100)] = 2.0
    """Focusing parameter. 0 gives (balanced) cross entropy."""
    alpha: Fraction | None = 0.25
    """Weight of positives; background has 1 - alpha. none gives both the weight 1."""
    alphas: dict[str, Fraction] = field(default_factory=dict)
    """Alpha of single classes: --loss.alphas.NAME 0.5. Other classes take ``alpha``."""
    class_weights: dict[str, NotNegative] = field(default_factory=dict)
    """Factor on the class loss of single classes: --loss.class-weights.NAME 2. Other classes have 1."""
    star_beta: Annotated[float, Within(-100, 100)] = 1.0
    """Beta of "focal_star". (``beta`` is that of smooth L1.)"""
    margin: Annotated[float, Within(0, 1, above=True)] = 0.5
    """Margin of "hinge": the p_t above which an example costs nothing."""
    ohem: OhemSettings = field(default_factory=OhemSettings)
    box: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    """Box loss."""
    beta: Positive = 1 / 9
    """Where smooth L1 changes from quadratic to linear, in encoded units."""
    box_weight: NotNegative = 1.0
    """Factor on the box loss."""
    normalizer: Literal["batch", "image"] = "batch"
    """Divisor of the loss. "batch" divides by the positive anchors of the batch, as in the paper. "image" divides each
    image's loss by its own positive anchors, then averages over images, as in torchvision."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "focal_star" or self.gamma > 0, "loss.gamma must be above 0 with loss.kind focal_star")


@dataclass(frozen=True)
class AugmentationSettings(Section, where="data.augmentation"):
    """Random changes of training images. Each is a function of (seed, epoch, image)."""

    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    sizes: tuple[Pixels, ...] = ()
    """Draw the training size from these instead of model.preprocessing.size. The paper's scale jitter is 640 to 800."""
    zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    """Range of a random factor on the training size, drawn log-uniformly. (1, 1) is off."""
    crop: Fraction = 0.0
    """Probability of a random crop. A crop keeps at least one box."""
    crop_scale: tuple[Fraction, Fraction] = (0.3, 1.0)
    """Range of the crop's side, as a fraction of the image's side."""
    colour: Fraction = 0.0
    """Strength of random brightness, contrast, saturation and hue. 0 is off, 1 is strong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("zoom", "crop_scale"):
            low, high = getattr(self, name)
            require(
                0 < low <= high, f"data.augmentation.{name} needs two numbers, 0 < low <= high, not {low} and {high}"
            )


@dataclass(frozen=True)
class DataSettings(Section, where="data"):
    """The splits to train and to evaluate on, and how images are loaded."""

    train: str = "train"
    """Name of the training split (train, trainval, ...)."""
    val: str = "val"
    """Name of the validation split (val, test, ...)."""
    strict: bool = False
    """Refuse a data set with any fault. Without this, faults are repaired or left out, and reported."""
    workers: Annotated[int, Within(-1, 1024)] = -1
    """Number of processes that load images. -1 chooses by the number of CPUs; 0 loads in the training process."""
    repeat_threshold: Fraction = 0.0
    """Repeat images of rare classes. A class in less than this share of the training images is repeated sqrt(threshold
    / share) times. An image is repeated as often as its rarest class; 0 is off. An epoch stays as many draws as there
    are images."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


@dataclass(frozen=True)
class TrainSettings(Section, where="train"):
    """The optimizer, its schedule, and the length of the run."""

    weights: str = "none"
    """Detector to start from: a run folder or a checkpoint of any known project. Its classes may differ. Weights that
    fit are kept. Model settings that are not given are taken from it."""
    batch_size: Count = 16
    """Images of one optimizer step, over all devices and accumulated chunks."""
    accumulate: Count = 1
    """Split a batch into this many chunks and accumulate their gradients, to save memory."""
    epochs: Positive | None = None
    """Length of the run in epochs; fractions are allowed."""
    steps: Count | None = None
    """Length of the run in optimizer steps."""
    budget: str | None = None
    """Length of the run in wall-clock time, such as 90s, 15m or 2h. It includes the final evaluation and the report.
    Give one of epochs, steps and budget; the default is 12 epochs."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    lr: Annotated[float, Within(0, 1e38, above=True)] = 0.01
    """Learning rate for a batch of ``lr_batch`` images. It scales linearly with the batch size."""
    lr_batch: Annotated[int, Within(0, 1e9)] = 16
    """Batch size that ``lr`` is meant for. 0 uses ``lr`` unscaled."""
    momentum: Score = 0.9
    """Momentum of SGD; beta1 of AdamW."""
    beta2: Score = 0.999
    """Decay of AdamW's average of squared gradients. 0.99 suits runs of some hundred steps."""
    weight_decay: NotNegative = 1e-4
    """Weight decay."""
    norm_weight_decay: NotNegative | None = None
    """Weight decay of normalization parameters and biases. none takes ``weight_decay``, as the paper's code does."""
    schedule: Literal["steps", "cosine", "constant"] = "steps"
    """Learning rate schedule."""
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    """Fractions of the run at which "steps" divides the learning rate by 10. In the paper: 60k and 80k of 90k steps."""
    warmup: Annotated[int, Within(0, 1e9)] = 500
    """Steps of linear warm-up, at most a tenth of the run."""
    warmup_start: Fraction = 1 / 3
    """Learning rate of the first step, as a fraction of the full one."""
    clip: Positive | None = None
    """Largest norm of the gradient. none does not clip."""
    ema: Annotated[float, Within(0, 1, above=True, below=True)] | None = None
    """Decay of the moving average of the weights, such as 0.9998. The averaged weights are evaluated and saved."""
    patience: Count | None = None
    """Stop after this many evaluations without a better AP."""
    eval_every: NotNegative = 1.0
    """Epochs between evaluations; 0 evaluates only at the end. With a budget the interval is adapted: about four
    evaluations, in at most 15 % of the time."""
    eval_images: Count | None = None
    """Limit of images for an evaluation during training, evenly spread. The last evaluation takes all."""
    save_every: str = "5m"
    """Wall-clock time between saves of the resume state. Each evaluation saves too."""
    report: bool = True
    """Write report.html at the end, which takes some seconds."""
    seed: int = 0
    """Seed of all random numbers."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format. "auto" is bf16 where the hardware multiplies in it, else fp32."""
    accelerator: str = "auto"
    """Accelerator of Lightning Fabric: cpu, cuda, mps, ..."""
    devices: str = "auto"
    """Devices of Lightning Fabric: a number, or a list such as 0,1. "auto" on a CPU is 1."""
    nodes: Annotated[int, Within(1, 65536)] = 1
    """Number of machines."""
    strategy: str = "auto"
    """Strategy of Lightning Fabric, such as ddp. Strategies that shard weights are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.weights not in ("", "imagenet"),
            f"train.weights must be a detector's run folder or checkpoint file, or none, not {self.weights!r}; "
            "for the weights of a backbone set model.backbone.weights",
        )
        require(
            self.accumulate <= self.batch_size,
            f"train.accumulate must be from 1 to train.batch_size ({self.batch_size}), not {self.accumulate}",
        )
        given = [n for n in ("epochs", "steps", "budget") if getattr(self, n) is not None]
        require(
            len(given) <= 1,
            f"give only one of train.epochs, train.steps and train.budget, not {' and '.join(given)}",
        )
        if self.budget is not None:
            seconds(self.budget, "train.budget")
        seconds(self.save_every, "train.save_every")


@dataclass(frozen=True)
class Settings(Section):
    """All settings of ``retinanet train``; the run folder keeps them as settings.yaml."""

    model: ModelSettings = field(default_factory=ModelSettings)
    matching: MatchingSettings = field(default_factory=MatchingSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


LONGEST_TIME = 10 * 365 * 24 * 3600
"""Seconds."""


def seconds(text: str, name: str = "time") -> float:
    """Convert a time such as ``"90s"``, ``"15m"`` or ``"1.5h"`` to seconds.

    Raises:
        SettingsError: ``text`` has no unit, is no time, or is longer than ten years.
    """
    number, unit = text[:-1], text[-1:]
    if len(bare := text.strip()) <= 32 and re.fullmatch(r"[0-9.]*[0-9]\.?", bare):
        raise SettingsError(f"{name} {shown(text)} has no unit: write {bare}m for minutes, {bare}s for seconds")
    if len(text) > 32 or not re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)[smh]", text):  # no exponent, ASCII alone
        raise SettingsError(f"{name} is a time such as 90s, 15m or 2h, not {shown(text)}")
    value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    if not 0 < value <= LONGEST_TIME:
        raise SettingsError(
            f"{name} is a time such as 90s, 15m or 2h, above 0 and up to {LONGEST_TIME // 3600}h, not {shown(text)}"
        )
    return value


# -------------------------------------------------------------------------------------------- plain values

LENGTHS = ("epochs", "steps", "budget")
"""Settings for the length of a run; a run has only one of them."""
FREE = ("model.backbone.options", "loss.alphas", "loss.class_weights")
"""Mappings whose keys are the user's own names."""


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as nested dicts and lists, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    result: dict[str, Any] = plain(dataclasses.asdict(settings))
    return result


def dotted(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested values as one dict of dotted names. Mappings with the user's own keys (``FREE``) stay values."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if isinstance(value, Mapping) and value and name not in FREE:
            result.update(dotted(value, f"{name}."))
        else:
            result[name] = value
    return result


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy of ``settings`` with ``values``, given by dotted names; a new length of the run replaces the old one."""
    plain = to_plain(settings)
    for name, value in values.items():
        *parents, last = name.split(".")
        section = plain
        for parent in parents:
            section = section[parent]
        if parents == ["train"] and last in LENGTHS:
            section.update(dict.fromkeys(LENGTHS))
        section[last] = value
    return from_plain(Settings, plain)


def overlaid(settings: ModelSettings, given: Mapping[str, Any]) -> ModelSettings:
    """A copy of ``settings`` in which the nested values ``given`` replace others.

    Raises:
        SettingsError: a given value is unknown or out of its range.
    """
    return from_plain(ModelSettings, merge(to_plain(settings), given), "model") if given else settings


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of both; where both have a name, the value of ``over`` counts."""
    result = dict(under)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merge(known, value) if isinstance(value, Mapping) and isinstance(known, Mapping) else value
    return result
