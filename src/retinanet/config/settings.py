"""Every setting of the project as typed dataclasses.

YAML recipes, command-line options, ``--help`` and the settings in a checkpoint are all made from these classes. The
docstring of a setting is its help text. Nothing heavy is imported here, so that the command line starts fast.

The defaults are those of the paper (Lin et al., 2017, sections 4 and 5) unless a comment says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from retinanet.common.fields import Section, SettingsError, Within, require, shown
from retinanet.config.bounds import BoxLoss, Count, Fraction, NotNegative, Pixels, Positive, Score, Zoom
from retinanet.config.model_settings import ModelSettings

LENGTHS = ("epochs", "steps", "budget")
"""Settings for the length of a run; a run has only one of them."""

STARTS = ("auto", "coco", "imagenet", "none")
"""Values of ``train.weights`` that are no source of weights."""


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
    box: BoxLoss = "smooth_l1"
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
    """Random changes of training images. Each is a function of the seed, the image, and how often it was drawn."""

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
    """Training split: train, trainval, ..."""
    val: str = "val"
    """Validation split (val, test, ...), or the share of the training split to hold out, such as 0.2. Without it a data
    set with one split holds out 0.2."""
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
    """Start from a run folder, a checkpoint of any known project, the weight file of a timm backbone, "coco",
    "imagenet" or "none". The classes of a detector may differ: weights that fit are kept, and model settings that are
    not given are those of the detector. A weight file is recognised by its contents. "coco" is torchvision's detector,
    trained on COCO. "imagenet" is the pretrained weights of the backbone. "auto", the default without a recipe, is the
    best of these that is within reach. "none" is new weights."""
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
    Give one of epochs, steps and budget. A recipe without any of them takes 12 epochs."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of the run."""
    lr: Annotated[float, Within(0, 1e38, above=True)] = 0.01
    """Learning rate for a batch of ``lr_batch`` images. It scales linearly with the batch size."""
    lr_batch: Annotated[int, Within(0, 1e9)] = 16
    """Batch size that ``lr`` is meant for. 0 uses ``lr`` unscaled."""
    backbone_lr: Annotated[float, Within(0, 100)] = 1.0
    """Factor on the learning rate of the backbone. Below 1, pretrained weights change less than the new layers."""
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
            self.weights != "",
            f"train.weights must be a run folder, a weight file, or one of {', '.join(STARTS)}, not {self.weights!r}",
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
    """All settings of ``retinanet train``; the run folder keeps them as settings.yaml.

    Example:
        >>> from retinanet import Settings
        >>> settings = Settings()
        >>> settings.model.anchors.ratios, settings.loss.gamma
        ((0.5, 1.0, 2.0), 2.0)
        >>> LossSettings(gamma=-1.0)
        Traceback (most recent call last):
        retinanet.common.fields.SettingsError: loss.gamma ...
    """

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
