"""Every setting of the project, once, as typed dataclasses.

YAML recipes, dotted command-line overrides, ``--help`` and what a checkpoint remembers are all made from the
classes below. Nothing heavy is imported here: reading settings must not cost a second of start-up.

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

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three scales an octave apart in thirds (section 4, "Anchors")

Normalization = Literal["none", "batch", "group"]
Interpolation = Literal["antialias", "pillow", "plain", "opencv"]

Fraction = Annotated[float, Within(0, 1)]
Positive = Annotated[float, Within(0, 1e6, above=True)]
NotNegative = Annotated[float, Within(0, 1e6)]
Score = Annotated[float, Within(0, 1, below=True)]
Mean = Annotated[float, Within(-1000, 1000)]
Std = Annotated[float, Within(1e-6, 1000)]
"""What pixels are divided by: a smaller one would make them infinite in some number format."""
Zoom = Annotated[float, Within(0.01, 100)]
Count = Annotated[int, Within(1, 1e9)]
Width = Annotated[int, Within(1, 8192)]
"""Channels of a convolution."""
Pixels = Annotated[int, Within(1, 16384)]
"""Side of an image; one of 8192 x 16384 takes 1.6 GB as float32."""


# ---------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class BackboneSettings(Section, where="model.backbone"):
    """The feature extractor: any timm model with features at strides 8, 16 and 32."""

    name: str = "resnet50"
    """Name of a timm model, for example resnet18, resnext101_32x8d, mobilenetv2_100, convnext_tiny."""
    weights: str = "none"
    """"none", "imagenet" (timm downloads them) or the path of a local weight file in timm's layout."""
    frozen_stages: Annotated[int, Within(0, 1000)] = 0
    """How many of the backbone's first parts are not trained; for a ResNet 1 is the stem, 2 stem and first stage."""
    frozen_norm: bool = False
    """Use the backbone's batch normalisation as a fixed affine map (its statistics and weights do not change)."""
    norm_eps: Fraction | None = None
    """What batch normalisation adds to the variance; none takes the backbone's own (1e-5 in a ResNet)."""
    stride_in_1x1: bool = False
    """In a ResNet of bottlenecks: halve the size in the first 1 x 1 convolution of a stage, as Caffe's ResNets do
    (Detectron, Detectron2, MMDetection's "caffe" models), rather than in the 3 x 3 one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to timm.create_model as they are, for example {"pad_type": "same"}; plain values, numbers up to 10 000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            re.fullmatch(r"\w+(\.\w+)?", self.name) is not None,  # no address, of which timm would fetch a model
            f"model.backbone.name must be the name of a timm model, such as resnet50, not {self.name!r}",
        )
        require_small(self.options, "model.backbone.options")


@dataclass(frozen=True)
class PyramidSettings(Section, where="model.pyramid"):
    """The feature pyramid; its levels are those that have anchors (``model.anchors``)."""

    channels: Width = 256
    p6_from: Literal["c5", "p5"] = "c5"
    """The paper computes P6 from the backbone's last feature, C5; torchvision's first RetinaNet from P5."""
    p7_relu: bool = True
    """P7 is computed from ReLU(P6), as in the paper; in MMDetection from P6 itself."""
    norm: Normalization = "none"


@dataclass(frozen=True)
class HeadSettings(Section, where="model.head"):
    """The class and box subnets: the same shape, separate weights, shared by all pyramid levels."""

    depth: Annotated[int, Within(0, 64)] = 4
    width: Width = 256
    norm: Normalization = "none"
    """Normalisation after each convolution of the subnets; "group" lets a detector train from scratch."""
    norm_bias: bool = False
    """Convolutions before a normalisation have a bias too, as in Detectron2's heads."""
    box_weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    """The box subnet predicts dx, dy, dw and dh multiplied by these numbers: Detectron2's BBOX_REG_WEIGHTS."""
    prior: Annotated[float, Within(0, 1, above=True, below=True)] = 0.01
    """Probability that every anchor starts with for every class (section 3.3)."""


@dataclass(frozen=True)
class AnchorSettings(Section, where="model.anchors"):
    """The anchor boxes of every pyramid level, and the conventions that tell RetinaNets apart."""

    sizes: tuple[Positive, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Base size in pixels of each pyramid level, one number a level: an anchor of scale 1 has the area size * size."""
    first_level: Annotated[int, Within(2, 5)] = 3
    """The finest level: 3, whose stride is 8, to P7 in the paper; 2, of stride 4, finds smaller objects and costs four
    times as much as 3 does."""
    scales: tuple[Positive, ...] = OCTAVES
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    """Height divided by width."""
    offset: Annotated[float, Within(-100, 100)] = 0.5
    """Centre of the first anchor in units of the stride: 0.5 is the middle of the cell, torchvision has 0."""
    rounding: Literal["none", "torchvision", "detectron"] = "none"
    """torchvision truncates size * scale to an integer and rounds the half extents of the boxes; Detectron rounds the
    sides of the anchors of one stride's size, before it scales them up."""
    strides: Literal["fixed", "torchvision"] = "fixed"
    """"fixed" is 8, 16, 32, 64, 128; torchvision divides the padded image's side by the grid's, rounding down."""

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
    """How an image becomes the network's input."""

    resize: Literal["shorter", "square", "none"] = "shorter"
    """"shorter": the shorter side becomes ``size``, the longer at most ``longer``, the shape is kept. "square": the
    longer side becomes ``size``, the shape is kept, the rest of a size x size square is padding."""
    size: Annotated[int, Within(1, 8192)] = 800
    longer: Pixels = 1333
    rounding: Literal["nearest", "down", "detectron", "detectron2"] = "nearest"
    """How the other side is rounded to whole pixels; torchvision rounds down. "detectron" rounds to the nearest, and
    goes on calculating with the scale as it was before the rounding. "detectron2" applies the limit on the longer side
    after the scale, which makes another pixel of some halves."""
    interpolation: Interpolation = "antialias"
    """"antialias" is bilinear and averages over the pixels that disappear when an image shrinks; so is "pillow", by
    Pillow itself, from which the faster first one differs by 1 in one value of a thousand. The others do not average:
    "plain" is bilinear in floating point, as torchvision resizes, "opencv" in OpenCV's whole numbers."""
    mean: tuple[Mean, Mean, Mean] | None = None
    """Mean of R, G and B in 0..1; none takes the backbone's own."""
    std: tuple[Std, Std, Std] | None = None
    """Standard deviation of R, G and B in 0..1; none takes the backbone's own."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours in the network's input. ``mean`` and ``std`` are those of R, G and B all the same."""
    multiple: Annotated[int, Within(32, 1024)] = 32
    """Both sides of a batch are padded (right and bottom, after normalisation, with zeros) to a multiple of this."""

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
    """From logits and deltas to detections (section 4.1, "Inference")."""

    threshold: Score = 0.05
    """Scores at or below it are dropped."""
    candidates: Annotated[int, Within(1, 1e6)] = 1000
    """At most this many (anchor, class) pairs a level go on to decoding, the best first."""
    nms_iou: Fraction = 0.5
    """Of two boxes of one class that overlap by more than this IoU the one with the lower score is dropped."""
    max_detections: Annotated[int, Within(1, 1e6)] = 100
    coarsest_threshold: Score | None = None
    """Threshold of the coarsest level where that is another; Detectron's is 0."""
    limit_shrinking: bool = False
    """Limit dw and dh from below as well, to a 62.5th of the anchor's side, as MMDetection does; others limit them
    from above alone."""
    clip: Literal["before", "after"] = "before"
    """Move corners into the image before or after suppression; Detectron2 does after."""
    drop_empty: bool = False
    """Leave out boxes without width or height after clipping, as Detectron2 and MMDetection do."""
    inclusive: bool = False
    """When boxes are scaled back to the image and clipped, x2 and y2 are those of the last pixel inside, as in
    Detectron. The boxes that are given have x2 = x1 + width all the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.clip == "before" or not self.inclusive,
            "model.postprocessing.inclusive goes with clip before, as in Detectron, not with clip after",
        )


@dataclass(frozen=True)
class ModelSettings(Section, where="model"):
    """What a checkpoint needs to give the same boxes anywhere."""

    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    pyramid: PyramidSettings = field(default_factory=PyramidSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    preprocessing: PreprocessingSettings = field(default_factory=PreprocessingSettings)
    postprocessing: PostprocessingSettings = field(default_factory=PostprocessingSettings)


# ---------------------------------------------------------------------------------------- what is learnt, and from what


@dataclass(frozen=True)
class MatchingSettings(Section, where="matching"):
    """Which anchors answer for which box (section 4, "Anchors")."""

    foreground: Fraction = 0.5
    """An anchor with at least this IoU with a box is assigned to it."""
    background: Fraction = 0.4
    """An anchor below this IoU with every box is background; between the two it is ignored."""
    low_quality: bool = False
    """Also assign each box's best anchor (any IoU above 0), as torchvision and Detectron2 do; the paper does not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.background <= self.foreground,
            "matching needs 0 <= background <= foreground <= 1, not "
            f"background {self.background} and foreground {self.foreground}",
        )


@dataclass(frozen=True)
class OhemSettings(Section, where="loss.ohem"):
    """Online hard example mining, what the focal loss was measured against (section 5.1, table 1d)."""

    batch: Count | None = None
    """Take the class loss of this many anchors an image, those with the largest; none takes all anchors."""
    nms: Fraction = 0.7
    """Before that, drop an anchor that overlaps one with a larger loss by more than this IoU; 1 drops none."""
    negatives: Positive | None = None
    """At most this many background anchors per positive one, 3 in the paper; none takes them by their loss alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.batch is not None or self.negatives is None,
            "loss.ohem.negatives needs loss.ohem.batch, the number of anchors that it is a part of",
        )


@dataclass(frozen=True)
class LossSettings(Section, where="loss"):
    """Class loss: FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t) (section 3). Box loss: on positive anchors only."""

    kind: Literal["focal", "focal_star", "hinge"] = "focal"
    """"focal_star" is -log(sigmoid(gamma x_t + star_beta)) / gamma (appendix A), "hinge" max(0, margin - p_t)."""
    gamma: Annotated[float, Within(0, 100)] = 2.0
    """0 gives (balanced) cross entropy."""
    alpha: Fraction | None = 0.25
    """Weight of positives, 1 - alpha that of background; none leaves both at 1."""
    alphas: dict[str, Fraction] = field(default_factory=dict)
    """The alpha of single classes, by name: --loss.alphas.NAME 0.5. Classes that are not named take ``alpha``."""
    class_weights: dict[str, NotNegative] = field(default_factory=dict)
    """A factor on the class loss of single classes, by name: --loss.class-weights.NAME 2. The others have 1."""
    star_beta: Annotated[float, Within(-100, 100)] = 1.0
    """The beta of "focal_star"; called so because ``beta`` is the smooth L1 loss's."""
    margin: Annotated[float, Within(0, 1, above=True)] = 0.5
    """Of "hinge": the p_t from which on an example is good enough."""
    ohem: OhemSettings = field(default_factory=OhemSettings)
    box: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    beta: Positive = 1 / 9
    """Where smooth L1 turns from quadratic to linear, in encoded units."""
    box_weight: NotNegative = 1.0
    normalizer: Literal["batch", "image"] = "batch"
    """What the loss is divided by. "batch": the positive anchors of the whole batch, as in the paper. "image": each
    image's loss by its own positive anchors, then the number of images, as in torchvision."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "focal_star" or self.gamma > 0, "loss.gamma must be above 0 with loss.kind focal_star")


@dataclass(frozen=True)
class AugmentationSettings(Section, where="data.augmentation"):
    """What happens to a training image; every draw is a function of (seed, epoch, image)."""

    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    sizes: tuple[Pixels, ...] = ()
    """Draw the training size from these instead of model.preprocessing.size (the paper's scale jitter: 640 to 800)."""
    zoom: tuple[Zoom, Zoom] = (1.0, 1.0)
    """Multiply the training size by a factor drawn (log-uniformly) from this range; (1, 1) is off."""
    crop: Fraction = 0.0
    """Probability of a random crop that keeps at least one box."""
    crop_scale: tuple[Fraction, Fraction] = (0.3, 1.0)
    """Side of the crop in units of the image's side."""
    colour: Fraction = 0.0
    """Strength of random brightness, contrast, saturation and hue; 0 is off, 1 is strong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("zoom", "crop_scale"):
            low, high = getattr(self, name)
            require(
                0 < low <= high, f"data.augmentation.{name} needs two numbers, 0 < low <= high, not {low} and {high}"
            )


@dataclass(frozen=True)
class DataSettings(Section, where="data"):
    """What is learnt from, what is measured on, and how images are loaded."""

    train: str = "train"
    """Name of the split that is learnt from (train, trainval, ...)."""
    val: str = "val"
    """Name of the split that is measured on (val, test, ...)."""
    strict: bool = False
    """Refuse a data set with any fault, instead of repairing or leaving out what is faulty and saying so."""
    workers: Annotated[int, Within(-1, 1024)] = -1
    """Processes that load images; -1 chooses from the number of CPUs, 0 loads in the training process."""
    repeat_threshold: Fraction = 0.0
    """Show images of rare classes more often: a class in less than this share of the training images is repeated
    sqrt(threshold / share) times, an image as often as the class in it that is repeated most; 0 is off. Lengths of
    runs go on counting an epoch as one draw for each image, though it then takes more to show them all."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


@dataclass(frozen=True)
class TrainSettings(Section, where="train"):
    """The optimiser, its schedule, and how long."""

    weights: str = "none"
    """A detector to begin with, other classes than its own allowed: a run folder or a checkpoint, of any project that
    is known. What fits of its weights is kept; its model settings are taken where none are given."""
    batch_size: Count = 16
    """Images of one optimiser step, over all devices and accumulated parts together."""
    accumulate: Count = 1
    """Compute the gradient of a batch in this many parts one after the other, to need less memory."""
    epochs: Positive | None = None
    """Length of the run: how many times every training image is seen (fractions allowed)."""
    steps: Count | None = None
    """Length of the run in optimiser steps."""
    budget: str | None = None
    """Length of the run in wall-clock time, such as 90s, 15m or 2h, final evaluation and report included. Give one of
    epochs, steps and budget; with none of them, 12 epochs."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Within(0, 1e38, above=True)] = 0.01
    """Learning rate for a batch of ``lr_batch`` images; scaled linearly with the batch size."""
    lr_batch: Annotated[int, Within(0, 1e9)] = 16
    """0 takes ``lr`` as it is, whatever the batch."""
    momentum: Score = 0.9
    """Of SGD; in AdamW the decay of the average gradient."""
    beta2: Score = 0.999
    """Decay of AdamW's average of squared gradients; 0.99 suits runs of some hundred steps."""
    weight_decay: NotNegative = 1e-4
    norm_weight_decay: NotNegative | None = None
    """Weight decay of normalisation parameters and biases; none: that of the others, as in the paper's code."""
    schedule: Literal["steps", "cosine", "constant"] = "steps"
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    """Where in the run "steps" divides the learning rate by 10; 60k and 80k of 90k steps in the paper."""
    warmup: Annotated[int, Within(0, 1e9)] = 500
    """Steps of linear warm-up; at most a tenth of the run."""
    warmup_start: Fraction = 1 / 3
    """Learning rate at the first step in units of the full one."""
    clip: Positive | None = None
    """Largest norm of the whole gradient; none does not clip."""
    ema: Annotated[float, Within(0, 1, above=True, below=True)] | None = None
    """Decay of the running average of the weights, for example 0.9998; the average is what is evaluated and kept."""
    patience: Count | None = None
    """Stop after this many evaluations without a better AP."""
    eval_every: NotNegative = 1.0
    """Epochs between evaluations, beside the one at the end; 0 evaluates at the end only. With a budget this follows
    the steps that fit into it: at least some four evaluations, as long as they take at most 15 % of the time."""
    eval_images: Count | None = None
    """Evaluate on at most this many images while training (evenly spread); the last evaluation takes all."""
    save_every: str = "5m"
    """Wall-clock time between saves of the resume state, beside those at each evaluation."""
    report: bool = True
    """End with report.html in the run folder, which takes some seconds."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """"auto": bf16 where the machine computes in it, else fp32."""
    accelerator: str = "auto"
    """Handed to Lightning Fabric: cpu, cuda, mps, ..."""
    devices: str = "auto"
    """Handed to Lightning Fabric: a number, or a list such as 0,1; "auto" on a CPU is 1."""
    nodes: Annotated[int, Within(1, 65536)] = 1
    strategy: str = "auto"
    """Handed to Lightning Fabric: ddp, for example. Strategies that shard weights are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.weights not in ("", "imagenet"),
            f"train.weights is a detector's run folder or checkpoint file, or none, not {self.weights!r}; a backbone's "
            "weights go to model.backbone.weights",
        )
        require(
            self.accumulate <= self.batch_size,
            f"train.accumulate must be from 1 to train.batch_size ({self.batch_size}), not {self.accumulate}",
        )
        given = [n for n in ("epochs", "steps", "budget") if getattr(self, n) is not None]
        require(
            len(given) <= 1,
            f"give one of train.epochs, train.steps and train.budget, not {' and '.join(given)} together",
        )
        if self.budget is not None:
            seconds(self.budget, "train.budget")
        seconds(self.save_every, "train.save_every")


@dataclass(frozen=True)
class Settings(Section):
    """Everything that ``retinanet train`` can be told; the run folder keeps it as settings.yaml."""

    model: ModelSettings = field(default_factory=ModelSettings)
    matching: MatchingSettings = field(default_factory=MatchingSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


LONGEST_TIME = 10 * 365 * 24 * 3600
"""Seconds."""


def seconds(text: str, name: str = "time") -> float:
    """``"90s"``, ``"15m"`` or ``"1.5h"`` to seconds.

    Raises:
        SettingsError: it is no such time, or longer than ten years; a number without a unit could mean any.
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


# ----------------------------------------------------------------------------------- to plain values and back again

LENGTHS = ("epochs", "steps", "budget")
"""Settings of which a run has one."""
FREE = ("model.backbone.options", "loss.alphas", "loss.class_weights")
"""Settings that map names of the user's own to values."""


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as nested dicts and lists, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    result: dict[str, Any] = plain(dataclasses.asdict(settings))
    return result


def dotted(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested values by their dotted names; mappings that a user fills (such as backbone.options) are values."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if isinstance(value, Mapping) and value and name not in FREE:
            result.update(dotted(value, f"{name}."))
        else:
            result[name] = value
    return result


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """``settings`` with ``values``, by their dotted names; a length of the run takes the place of another."""
    plain = to_plain(settings)
    for name, value in values.items():
        *parents, last = name.split(".")
        place = plain
        for parent in parents:
            place = place[parent]
        if parents == ["train"] and last in LENGTHS:
            place.update(dict.fromkeys(LENGTHS))
        place[last] = value
    return from_plain(Settings, plain)


def overlaid(settings: ModelSettings, given: Mapping[str, Any]) -> ModelSettings:
    """``settings`` under those that are given, as nested dicts.

    Raises:
        SettingsError: one of these is unknown or out of its range.
    """
    return from_plain(ModelSettings, merge(to_plain(settings), given), "model") if given else settings


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values: those of ``over`` take the place of those of ``under`` with the same names."""
    result = dict(under)
    for key, value in over.items():
        known = result.get(key)
        result[key] = merge(known, value) if isinstance(value, Mapping) and isinstance(known, Mapping) else value
    return result
