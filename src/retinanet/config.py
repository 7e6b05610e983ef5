"""Every setting of the project, once, as typed dataclasses.

YAML recipes, dotted command-line overrides, ``--help`` and what a checkpoint remembers are all made from the
classes below. Nothing heavy is imported here: reading settings must not cost a second of start-up.

The defaults are those of the paper (Lin et al., 2017, sections 4 and 5) unless a comment says otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retinanet.errors import RequestError

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three scales an octave apart in thirds (section 4, "Anchors")

Normalization = Literal["none", "batch", "group"]
Interpolation = Literal["antialias", "pillow", "plain", "opencv"]


class SettingsError(RequestError):
    """A setting that cannot be used; the message says which, why and what to write instead."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsError(message)


# ---------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class BackboneSettings:
    """The feature extractor: any timm model with features at strides 8, 16 and 32."""

    name: str = "resnet50"
    """Name of a timm model, for example resnet18, resnext101_32x8d, mobilenetv2_100, convnext_tiny."""
    weights: str = "none"
    """"none", "imagenet" (timm downloads them) or the path of a local weight file in timm's layout."""
    frozen_stages: int = 0
    """How many of the backbone's first parts are not trained; for a ResNet 1 is the stem, 2 stem and first stage."""
    frozen_norm: bool = False
    """Use the backbone's batch normalisation as a fixed affine map (its statistics and weights do not change)."""
    norm_eps: float | None = None
    """What batch normalisation adds to the variance; none takes the backbone's own (1e-5 in a ResNet)."""
    stride_in_1x1: bool = False
    """In a ResNet of bottlenecks: halve the size in the first 1 x 1 convolution of a stage, as Caffe's ResNets do
    (Detectron, Detectron2, MMDetection's "caffe" models), rather than in the 3 x 3 one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to timm.create_model as they are, for example {"pad_type": "same"}."""

    def __post_init__(self) -> None:
        require(bool(self.name), "model.backbone.name is empty: give the name of a timm model, such as resnet50")
        require(self.frozen_stages >= 0, f"model.backbone.frozen_stages must be 0 or more, not {self.frozen_stages}")
        require(
            self.norm_eps is None or self.norm_eps >= 0,
            f"model.backbone.norm_eps must be 0 or more, not {self.norm_eps}",
        )


@dataclass(frozen=True)
class PyramidSettings:
    """The feature pyramid; its levels are those that have anchors (``model.anchors``)."""

    channels: int = 256
    p6_from: Literal["c5", "p5"] = "c5"
    """The paper computes P6 from the backbone's last feature, C5; torchvision's first RetinaNet from P5."""
    p7_relu: bool = True
    """P7 is computed from ReLU(P6), as in the paper; in MMDetection from P6 itself."""
    norm: Normalization = "none"

    def __post_init__(self) -> None:
        require(self.channels >= 1, f"model.pyramid.channels must be at least 1, not {self.channels}")


@dataclass(frozen=True)
class HeadSettings:
    """The class and box subnets: the same shape, separate weights, shared by all pyramid levels."""

    depth: int = 4
    width: int = 256
    norm: Normalization = "none"
    """Normalisation after each convolution of the subnets; "group" lets a detector train from scratch."""
    norm_bias: bool = False
    """Convolutions before a normalisation have a bias too, as in Detectron2's heads."""
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """The box subnet predicts dx, dy, dw and dh multiplied by these numbers: Detectron2's BBOX_REG_WEIGHTS."""
    prior: float = 0.01
    """Probability that every anchor starts with for every class (section 3.3)."""

    def __post_init__(self) -> None:
        require(self.depth >= 0, f"model.head.depth must be 0 or more, not {self.depth}")
        require(self.width >= 1, f"model.head.width must be at least 1, not {self.width}")
        require(
            all(0 < weight < float("inf") for weight in self.box_weights),
            f"model.head.box_weights needs four numbers above 0, not {list(self.box_weights)}",
        )
        require(0 < self.prior < 1, f"model.head.prior is a probability between 0 and 1, not {self.prior}")


@dataclass(frozen=True)
class AnchorSettings:
    """The anchor boxes of every pyramid level, and the conventions that tell RetinaNets apart."""

    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Base size in pixels of each pyramid level, one number a level: an anchor of scale 1 has the area size * size."""
    first_level: int = 3
    """The finest level: 3, whose stride is 8, to P7 in the paper; 2, of stride 4, finds smaller objects and costs four
    times as much as 3 does."""
    scales: tuple[float, ...] = OCTAVES
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height divided by width."""
    offset: float = 0.5
    """Centre of the first anchor in units of the stride: 0.5 is the middle of the cell, torchvision has 0."""
    rounding: Literal["none", "torchvision", "detectron"] = "none"
    """torchvision truncates size * scale to an integer and rounds the half extents of the boxes; Detectron rounds the
    sides of the anchors of one stride's size, before it scales them up."""
    strides: Literal["fixed", "torchvision"] = "fixed"
    """"fixed" is 8, 16, 32, 64, 128; torchvision divides the padded picture's side by the grid's, rounding down."""

    def __post_init__(self) -> None:
        require(2 <= self.first_level <= 5, f"model.anchors.first_level must be from 2 to 5, not {self.first_level}")
        require(
            len(self.sizes) <= 8 - self.first_level,
            f"model.anchors.sizes has {len(self.sizes)} numbers, but from P{self.first_level} to P7 there are "
            f"{8 - self.first_level} levels",
        )
        for name in ("sizes", "scales", "ratios"):
            values = getattr(self, name)
            require(
                len(values) > 0 and all(v > 0 for v in values),
                f"model.anchors.{name} needs one or more numbers above 0, not {list(values)}",
            )

    @property
    def per_position(self) -> int:
        return len(self.scales) * len(self.ratios)

    @property
    def levels(self) -> range:
        """The numbers of the pyramid levels; level l has the stride 2 ** l."""
        return range(self.first_level, self.first_level + len(self.sizes))


@dataclass(frozen=True)
class PreprocessingSettings:
    """How a picture becomes the network's input."""

    resize: Literal["shorter", "square", "none"] = "shorter"
    """"shorter": the shorter side becomes ``size``, the longer at most ``longer``, the shape is kept. "square": the
    longer side becomes ``size``, the shape is kept, the rest of a size x size square is padding."""
    size: int = 800
    longer: int = 1333
    rounding: Literal["nearest", "down", "detectron", "detectron2"] = "nearest"
    """How the other side is rounded to whole pixels; torchvision rounds down. "detectron" rounds to the nearest, and
    goes on calculating with the scale as it was before the rounding. "detectron2" applies the limit on the longer side
    after the scale, which makes another pixel of some halves."""
    interpolation: Interpolation = "antialias"
    """"antialias" is bilinear and averages over the pixels that disappear when a picture shrinks; so is "pillow", by
    Pillow itself, from which the faster first one differs by 1 in one value of a thousand. The others do not average:
    "plain" is bilinear in floating point, as torchvision resizes, "opencv" in OpenCV's whole numbers."""
    mean: tuple[float, float, float] | None = None
    """Mean of R, G and B in 0..1; none takes the backbone's own."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of R, G and B in 0..1; none takes the backbone's own."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours in the network's input. ``mean`` and ``std`` are those of R, G and B all the same."""
    multiple: int = 32
    """Both sides of a batch are padded (right and bottom, after normalisation, with zeros) to a multiple of this."""

    def __post_init__(self) -> None:
        require(self.size >= 1, f"model.preprocessing.size must be at least 1 pixel, not {self.size}")
        require(
            self.resize != "shorter" or self.longer >= self.size,
            f"model.preprocessing.longer ({self.longer}) is below model.preprocessing.size ({self.size})",
        )
        require(
            self.std is None or all(s > 0 for s in self.std),
            f"model.preprocessing.std needs numbers above 0, not {list(self.std or ())}",
        )
        require(
            self.multiple >= 32 and self.multiple % 32 == 0,
            f"model.preprocessing.multiple must be a multiple of 32 (the stride of C5), not {self.multiple}",
        )


@dataclass(frozen=True)
class PostprocessingSettings:
    """From logits and deltas to detections (section 4.1, "Inference")."""

    threshold: float = 0.05
    """Scores at or below it are dropped."""
    candidates: int = 1000
    """At most this many (anchor, class) pairs a level go on to decoding, the best first."""
    nms_iou: float = 0.5
    """Of two boxes of one class that overlap by more than this IoU the one with the lower score is dropped."""
    max_detections: int = 100
    coarsest_threshold: float | None = None
    """Threshold of the coarsest level where that is another; Detectron's is 0."""
    limit_shrinking: bool = False
    """Limit dw and dh from below as well, to a 62.5th of the anchor's side, as MMDetection does; others limit them
    from above alone."""
    clip: Literal["before", "after"] = "before"
    """Move corners into the picture before or after suppression; Detectron2 does after."""
    drop_empty: bool = False
    """Leave out boxes without width or height after clipping, as Detectron2 and MMDetection do."""
    inclusive: bool = False
    """When boxes are scaled back to the picture and clipped, x2 and y2 are those of the last pixel inside, as in
    Detectron. The boxes that are given have x2 = x1 + width all the same."""

    def __post_init__(self) -> None:
        require(
            self.coarsest_threshold is None or 0 <= self.coarsest_threshold < 1,
            f"model.postprocessing.coarsest_threshold must be in [0, 1), not {self.coarsest_threshold}",
        )
        require(
            self.clip == "before" or not self.inclusive,
            "model.postprocessing.inclusive goes with clip before, as in Detectron, not with clip after",
        )
        require(0 <= self.threshold < 1, f"model.postprocessing.threshold must be in [0, 1), not {self.threshold}")
        require(self.candidates >= 1, f"model.postprocessing.candidates must be at least 1, not {self.candidates}")
        require(0 <= self.nms_iou <= 1, f"model.postprocessing.nms_iou must be in [0, 1], not {self.nms_iou}")
        require(
            self.max_detections >= 1,
            f"model.postprocessing.max_detections must be at least 1, not {self.max_detections}",
        )


@dataclass(frozen=True)
class ModelSettings:
    """What a checkpoint needs to give the same boxes anywhere."""

    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    pyramid: PyramidSettings = field(default_factory=PyramidSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    preprocessing: PreprocessingSettings = field(default_factory=PreprocessingSettings)
    postprocessing: PostprocessingSettings = field(default_factory=PostprocessingSettings)


# ---------------------------------------------------------------------------------------- what is learnt, and from what


@dataclass(frozen=True)
class MatchingSettings:
    """Which anchors answer for which box (section 4, "Anchors")."""

    foreground: float = 0.5
    """An anchor with at least this IoU with a box is assigned to it."""
    background: float = 0.4
    """An anchor below this IoU with every box is background; between the two it is ignored."""
    low_quality: bool = False
    """Also assign each box's best anchor (any IoU above 0), as torchvision and Detectron2 do; the paper does not."""

    def __post_init__(self) -> None:
        require(
            0 <= self.background <= self.foreground <= 1,
            "matching needs 0 <= background <= foreground <= 1, not "
            f"background {self.background} and foreground {self.foreground}",
        )


@dataclass(frozen=True)
class OhemSettings:
    """Online hard example mining, what the focal loss was measured against (section 5.1, table 1d)."""

    batch: int | None = None
    """Take the class loss of this many anchors a picture, those with the largest; none takes all anchors."""
    nms: float = 0.7
    """Before that, drop an anchor that overlaps one with a larger loss by more than this IoU; 1 drops none."""
    negatives: float | None = None
    """At most this many background anchors per positive one, 3 in the paper; none takes them by their loss alone."""

    def __post_init__(self) -> None:
        require(self.batch is None or self.batch >= 1, f"loss.ohem.batch must be at least 1, not {self.batch}")
        require(0 <= self.nms <= 1, f"loss.ohem.nms must be in [0, 1], not {self.nms}")
        require(
            self.negatives is None or self.negatives > 0,
            f"loss.ohem.negatives must be above 0, not {self.negatives}",
        )
        require(
            self.batch is not None or self.negatives is None,
            "loss.ohem.negatives needs loss.ohem.batch, the number of anchors that it is a part of",
        )


@dataclass(frozen=True)
class LossSettings:
    """Class loss: FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t) (section 3). Box loss: on positive anchors only."""

    kind: Literal["focal", "focal_star", "hinge"] = "focal"
    """"focal_star" is -log(sigmoid(gamma x_t + star_beta)) / gamma (appendix A), "hinge" max(0, margin - p_t)."""
    gamma: float = 2.0
    """0 gives (balanced) cross entropy."""
    alpha: float | None = 0.25
    """Weight of positives, 1 - alpha that of background; none leaves both at 1."""
    alphas: dict[str, float] = field(default_factory=dict)
    """The alpha of single classes, by name: --loss.alphas.NAME 0.5. Classes that are not named take ``alpha``."""
    class_weights: dict[str, float] = field(default_factory=dict)
    """A factor on the class loss of single classes, by name: --loss.class-weights.NAME 2. The others have 1."""
    star_beta: float = 1.0
    """The beta of "focal_star"; called so because ``beta`` is the smooth L1 loss's."""
    margin: float = 0.5
    """Of "hinge": the p_t from which on an example is good enough."""
    ohem: OhemSettings = field(default_factory=OhemSettings)
    box: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    beta: float = 1 / 9
    """Where smooth L1 turns from quadratic to linear, in encoded units."""
    box_weight: float = 1.0
    normalizer: Literal["batch", "image"] = "batch"
    """What the loss is divided by. "batch": the positive anchors of the whole batch, as in the paper. "image": each
    image's loss by its own positive anchors, then the number of images, as in torchvision."""

    def __post_init__(self) -> None:
        require(self.gamma >= 0, f"loss.gamma must be 0 or more, not {self.gamma}")
        require(self.kind != "focal_star" or self.gamma > 0, "loss.gamma must be above 0 with loss.kind focal_star")
        require(self.alpha is None or 0 <= self.alpha <= 1, f"loss.alpha must be in [0, 1] or none, not {self.alpha}")
        for name, alpha in self.alphas.items():
            require(0 <= alpha <= 1, f"loss.alphas.{name} must be in [0, 1], not {alpha}")
        for name, weight in self.class_weights.items():
            require(0 <= weight < float("inf"), f"loss.class_weights.{name} must be 0 or more, not {weight}")
        require(0 < self.margin <= 1, f"loss.margin must be in (0, 1], not {self.margin}")
        require(self.beta > 0, f"loss.beta must be above 0, not {self.beta} (for plain L1 set loss.box to l1)")
        require(self.box_weight >= 0, f"loss.box_weight must be 0 or more, not {self.box_weight}")


@dataclass(frozen=True)
class AugmentationSettings:
    """What happens to a training picture; every draw is a function of (seed, epoch, picture)."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    sizes: tuple[int, ...] = ()
    """Draw the training size from these instead of model.preprocessing.size (the paper's scale jitter: 640 to 800)."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Multiply the training size by a factor drawn (log-uniformly) from this range; (1, 1) is off."""
    crop: float = 0.0
    """Probability of a random crop that keeps at least one box."""
    crop_scale: tuple[float, float] = (0.3, 1.0)
    """Side of the crop in units of the picture's side."""
    colour: float = 0.0
    """Strength of random brightness, contrast, saturation and hue; 0 is off, 1 is strong."""

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "colour"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"data.augmentation.{name} must be in [0, 1], not {value}")
        for name in ("zoom", "crop_scale"):
            low, high = getattr(self, name)
            require(
                0 < low <= high, f"data.augmentation.{name} needs two numbers, 0 < low <= high, not {low} and {high}"
            )
        require(self.crop_scale[1] <= 1, "data.augmentation.crop_scale cannot be above 1")
        require(all(s >= 1 for s in self.sizes), f"data.augmentation.sizes needs pixels, not {list(self.sizes)}")


@dataclass(frozen=True)
class DataSettings:
    """What is learnt from, what is measured on, and how pictures are loaded."""

    train: str = "train"
    """Name of the split that is learnt from (train, trainval, ...)."""
    val: str = "val"
    """Name of the split that is measured on (val, test, ...)."""
    strict: bool = False
    """Refuse a data set with any fault, instead of repairing or leaving out what is faulty and saying so."""
    workers: int = -1
    """Processes that load pictures; -1 chooses from the number of processors, 0 loads in the training process."""
    repeat_threshold: float = 0.0
    """Show pictures of rare classes more often: a class in less than this share of the training pictures is repeated
    sqrt(threshold / share) times, a picture as often as the class in it that is repeated most; 0 is off. Lengths of
    runs go on counting an epoch as one draw for each picture, though it then takes more to show them all."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        require(
            0 <= self.repeat_threshold <= 1,
            f"data.repeat_threshold is a share of the pictures, in [0, 1], not {self.repeat_threshold}",
        )
        require(self.workers >= -1, f"data.workers must be at least -1, not {self.workers}")


@dataclass(frozen=True)
class TrainSettings:
    """The optimiser, its schedule, and how long."""

    weights: str = "none"
    """A detector to begin with, other classes than its own allowed: a run folder or a checkpoint, of any project that
    is known. What fits of its weights is kept; its model settings are taken where none are given."""
    batch_size: int = 16
    """Pictures of one optimiser step, over all devices and accumulated parts together."""
    accumulate: int = 1
    """Compute the gradient of a batch in this many parts one after the other, to need less memory."""
    epochs: float | None = None
    """Length of the run: how many times every training picture is seen (fractions allowed)."""
    steps: int | None = None
    """Length of the run in optimiser steps."""
    budget: str | None = None
    """Length of the run in wall-clock time, such as 90s, 15m or 2h, final evaluation included. Give one of epochs,
    steps and budget; with none of them, 12 epochs."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Learning rate for a batch of ``lr_batch`` pictures; scaled linearly with the batch size."""
    lr_batch: int = 16
    """0 takes ``lr`` as it is, whatever the batch."""
    momentum: float = 0.9
    """Of SGD; in AdamW the decay of the average gradient."""
    beta2: float = 0.999
    """Decay of AdamW's average of squared gradients; 0.99 suits runs of some hundred steps."""
    weight_decay: float = 1e-4
    norm_weight_decay: float | None = None
    """Weight decay of normalisation parameters and biases; none: that of the others, as in the paper's code."""
    schedule: Literal["steps", "cosine", "constant"] = "steps"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    """Where in the run "steps" divides the learning rate by 10; 60k and 80k of 90k steps in the paper."""
    warmup: int = 500
    """Steps of linear warm-up; at most a tenth of the run."""
    warmup_start: float = 1 / 3
    """Learning rate at the first step in units of the full one."""
    clip: float | None = None
    """Largest norm of the whole gradient; none does not clip."""
    ema: float | None = None
    """Decay of the running average of the weights, for example 0.9998; the average is what is evaluated and kept."""
    patience: int | None = None
    """Stop after this many evaluations without a better AP."""
    eval_every: float = 1.0
    """Epochs between evaluations, beside the one at the end; 0 evaluates at the end only."""
    eval_pictures: int | None = None
    """Evaluate on at most this many pictures while training (evenly spread); the last evaluation takes all."""
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
    nodes: int = 1
    strategy: str = "auto"
    """Handed to Lightning Fabric: ddp, fsdp, ..."""

    def __post_init__(self) -> None:
        require(
            self.weights not in ("", "imagenet"),
            f"train.weights is a detector's run folder or checkpoint file, or none, not {self.weights!r}; a backbone's "
            "weights go to model.backbone.weights",
        )
        require(self.batch_size >= 1, f"train.batch_size must be at least 1, not {self.batch_size}")
        require(
            1 <= self.accumulate <= self.batch_size,
            f"train.accumulate must be from 1 to train.batch_size ({self.batch_size}), not {self.accumulate}",
        )
        given = [n for n in ("epochs", "steps", "budget") if getattr(self, n) is not None]
        require(
            len(given) <= 1,
            f"give one of train.epochs, train.steps and train.budget, not {' and '.join(given)} together",
        )
        require(self.epochs is None or self.epochs > 0, f"train.epochs must be above 0, not {self.epochs}")
        require(self.steps is None or self.steps >= 1, f"train.steps must be at least 1, not {self.steps}")
        if self.budget is not None:
            seconds(self.budget, "train.budget")
        seconds(self.save_every, "train.save_every")
        for name in ("lr_batch", "weight_decay", "norm_weight_decay", "warmup"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"train.{name} must be 0 or more, not {value}")
        for name in ("eval_pictures", "patience", "nodes"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"train.{name} must be at least 1, not {value}")
        require(self.lr > 0, f"train.lr must be above 0, not {self.lr}")
        for name in ("momentum", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name} must be in [0, 1), not {value}")
        require(self.ema is None or 0 < self.ema < 1, f"train.ema must be between 0 and 1, not {self.ema}")
        require(self.clip is None or self.clip > 0, f"train.clip must be above 0, not {self.clip}")
        require(self.eval_every >= 0, f"train.eval_every must be 0 or more, not {self.eval_every}")


@dataclass(frozen=True)
class Settings:
    """Everything that ``retinanet train`` can be told; the run folder keeps it as settings.yaml."""

    model: ModelSettings = field(default_factory=ModelSettings)
    matching: MatchingSettings = field(default_factory=MatchingSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


def seconds(text: str, name: str = "time") -> float:
    """``"90s"``, ``"15m"``, ``"1.5h"`` or ``"90"`` to seconds."""
    number, unit = (text[:-1], text[-1]) if text and text[-1] in "smh" else (text, "s")
    try:
        value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise SettingsError(f"{name} is a time such as 90s, 15m or 2h, not {text!r}")
    return value


# ----------------------------------------------------------------------------------- to plain values and back again

S = TypeVar("S")
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
    names = dotted(given, "model.")
    return changed(Settings(model=settings), names).model if names else settings


def from_plain(kind: type[S], values: Any, where: str = "") -> S:
    """The inverse of :func:`to_plain`; absent keys keep their defaults.

    Raises:
        SettingsError: on an unknown key (with the nearest known one) or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise SettingsError(f"{where or 'settings'} must be a mapping of names to values, not {values!r}")
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        dotted = f"{where}.{key}" if where else str(key)
        if key not in names:
            import difflib

            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(names)}"
            raise SettingsError(f"unknown setting {dotted!r}{hint}")
        arguments[key] = _convert(hints[key], value, dotted)
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (inner,) = (h for h in get_args(hint) if h is not type(None))
        return _convert(inner, value, where)
    if origin is Literal:
        if value in get_args(hint):
            return value
        raise SettingsError(f"{where} must be one of {', '.join(map(str, get_args(hint)))}, not {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_convert(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(inner) == len(value):
            return tuple(_convert(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(inner, value)))
        raise SettingsError(f"{where} needs {len(inner)} values, not {len(value)}")
    if origin is dict and isinstance(value, dict):
        kind = get_args(hint)[1]
        return {str(k): v if kind is Any else _convert(kind, v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # YAML reads ``devices: 2`` as a number
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(hint, "a list")
    wanted = "a mapping of names to values" if origin is dict else wanted
    raise SettingsError(f"{where} must be {wanted}, not {value!r}")
