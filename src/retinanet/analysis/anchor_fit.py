"""Chooses image size and anchors for a data set.

A search over a few numbers fits the anchors. Its score is the IoU of the boxes with their best anchors. It uses no
random numbers and a fixed number of boxes, so the same data give the same anchors, in seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.analysis.coverage import Boxes, best_anchors, boxes_at_training_size, share_text
from retinanet.config.convert import changed
from retinanet.config.model_settings import AnchorSettings, ModelSettings, PreprocessingSettings
from retinanet.config.settings import MatchingSettings, Settings
from retinanet.data.dataset import DetectionData

SEARCHED = 3000  # boxes that the search uses; more boxes change the third digit
COUNTED = 200_000  # boxes at most from which the coverage before and after is computed
SMALL = 5.0  # percentile of the box sizes that determines the image size
LEAST, MOST = 224, 800  # range of the image size; the paper's is 800
WORTH = 0.05  # share of the boxes that P2 must cover in addition, because it costs more than the rest of the network
NEEDLESS = 0.002  # a coarse level is removed if at most this share of the boxes has its best anchor there
ENOUGH = 0.95  # coverage below which the user gets a warning
CLEARLY = 0.005  # difference of the coverage that is worth a suggestion
PIXEL = 1.0  # pixels at the training size: smaller boxes show nothing of an object
COARSEST = 7
SIDE = {"cpu": 24.0, "cuda": 40.0}  # pixels that small objects get: a CPU has time for fewer
# Anchor sizes over strides at which the search starts: 4 in the paper, 1 where objects are as small as cells.
BASES = tuple(2 ** (i / 3) for i in range(8))


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen for the user, with the reason."""

    setting: str
    """The setting's dotted name."""
    value: Any
    reason: str
    warning: str = ""
    """A line that the user has to see, if the choice is a poor one."""

    def plain(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"setting": self.setting, "value": value, "reason": self.reason}


@dataclass(frozen=True)
class FittedAnchors:
    """Anchors for a data set, with their coverage."""

    settings: AnchorSettings
    before: float
    """Share of the boxes that the previous anchors cover."""
    after: float
    """Share of the boxes that these anchors cover."""

    def choices(self, previous: AnchorSettings) -> list[Choice]:
        """The settings that differ from the previous ones."""
        first, last = self.settings.levels[0], self.settings.levels[-1]
        coverage = (
            f"the best anchor reaches the foreground IoU for {share_text(self.after)} of the boxes, "
            f"{share_text(self.before)} with the anchors of the recipe"
        )
        reasons = {
            "sizes": coverage,
            "ratios": "the shapes of the boxes",
            "first_level": f"levels P{first} to P{last}: where boxes have their best anchors",
        }
        return [
            Choice(f"model.anchors.{name}", getattr(self.settings, name), reason)
            for name, reason in reasons.items()
            if getattr(self.settings, name) != getattr(previous, name)
        ]


def fit_anchors(
    data: DetectionData, model: ModelSettings, matching: MatchingSettings, finest: int = 2
) -> FittedAnchors:
    """Fit anchor sizes, ratios and levels to the boxes of ``data``, at the image size of ``model``.

    The number of anchors at a position (scales times ratios) stays, so that weights of a trained model fit. The present
    settings take part in the comparison, so the result covers no fewer of the boxes that the search uses.

    Args:
        finest: the finest pyramid level that may be chosen, 2 or 3.
    """
    boxes = boxes_at_training_size(data, model.preprocessing).sample(COUNTED)
    present = model.anchors
    if not len(boxes.labels):
        return FittedAnchors(present, 1.0, 1.0)
    search = _Search(boxes.sample(SEARCHED), present, matching.foreground)
    best = search.best(first_level=3)
    if finest == 2 and best.share < 1 - WORTH:
        finer = search.best(first_level=2)
        if finer.share > best.share + WORTH:
            best = finer
    best = max(search.score(present), best, key=lambda scored: scored.value)
    settings = _without_coarse(best.settings, best_anchors(boxes, best.settings)[1])
    before, after = (
        float((best_anchors(boxes, anchors)[0] >= matching.foreground).mean()) for anchors in (present, settings)
    )
    return FittedAnchors(settings, before, after)


def _without_coarse(settings: AnchorSettings, level_of: NDArray[np.int8]) -> AnchorSettings:
    """The settings without the coarse levels that hardly any box needs."""
    count = len(settings.sizes)
    while count > 1 and (level_of >= count - 1).mean() <= NEEDLESS:
        count -= 1
    return dataclasses.replace(settings, sizes=settings.sizes[:count])


@dataclass(frozen=True)
class _Scored:
    """Settings with their score and the share of the boxes that they cover."""

    settings: AnchorSettings
    value: float
    share: float


class _Search:
    """Searches for anchor settings.

    A box scores more the better its best anchor fits, up to an IoU slightly above the foreground threshold. A class
    weighs by the square root of its number of boxes, so that rare classes count more.
    """

    def __init__(self, boxes: Boxes, settings: AnchorSettings, foreground: float) -> None:
        self.boxes, self.settings, self.foreground = boxes, settings, foreground
        counts = np.bincount(boxes.labels)
        self.weights = counts[boxes.labels] ** -0.5
        self.weights /= self.weights.sum()

    def score(self, settings: AnchorSettings) -> _Scored:
        best, _ = best_anchors(self.boxes, settings)
        low, high = self.foreground - 0.2, self.foreground + 0.15
        value = float((np.clip((best - low) / (high - low), 0, 1) * self.weights).sum())
        return _Scored(settings, value, float((best >= self.foreground).mean()))

    def best(self, first_level: int) -> _Scored:
        """The best settings with levels from ``first_level`` to P7, and sizes an octave apart as in the paper."""
        shapes = self._shapes()
        tried = [self.score(self._make(first_level, base, ratios)) for base in BASES for ratios in shapes]
        best = max(tried, key=lambda scored: scored.value)
        for step in (2 ** (1 / 6), 2 ** (1 / 12)):  # change one number at a time, as long as the score improves
            while True:
                near = [self.score(settings) for settings in _neighbours(best.settings, step)]
                better = max(near, key=lambda scored: scored.value)
                if better.value <= best.value + 1e-4:
                    break
                best = better
        return best

    def _make(self, first_level: int, base: float, ratios: tuple[float, ...]) -> AnchorSettings:
        sizes = tuple(_round(base * 2**level) for level in range(first_level, COARSEST + 1))
        return dataclasses.replace(self.settings, first_level=first_level, sizes=sizes, ratios=ratios)

    def _shapes(self) -> list[tuple[float, ...]]:
        """Ratios at which the search starts: the present ones, and quantiles of the boxes' ratios."""
        corners = self.boxes.corners
        logs = np.log((corners[:, 3] - corners[:, 1]) / (corners[:, 2] - corners[:, 0]))
        order = np.argsort(logs)
        reached = np.cumsum(self.weights[order])
        count = len(self.settings.ratios)
        result = [self.settings.ratios]
        for margin in (0.05, 0.15, 0.25):
            wanted = np.linspace(margin, 1 - margin, count) if count > 1 else np.array([0.5])
            at = logs[order][np.minimum(np.searchsorted(reached, wanted), len(logs) - 1)]
            result.append(tuple(_round(math.exp(value)) for value in at))
        return list(dict.fromkeys(result))


def _neighbours(settings: AnchorSettings, step: float) -> list[AnchorSettings]:
    """The settings with all sizes or one ratio changed by a factor."""
    result = []
    for factor in (step, 1 / step):
        sizes = tuple(_round(size * factor) for size in settings.sizes)
        result.append(dataclasses.replace(settings, sizes=sizes))
        for i, ratio in enumerate(settings.ratios):
            ratios = sorted((*settings.ratios[:i], _round(ratio * factor), *settings.ratios[i + 1 :]))
            result.append(dataclasses.replace(settings, ratios=tuple(ratios)))
    return result


def _round(value: float) -> float:
    """Round to three digits: enough for an anchor, and readable."""
    return float(f"{value:.3g}")


def fit_size(data: DetectionData, preprocessing: PreprocessingSettings, side: float) -> tuple[int, int, str]:
    """Choose the shorter and longer side of the images, as small as the small boxes allow: time grows with its square.

    Args:
        side: small boxes (the fifth percentile of the square root of the area) get about this many pixels. Images are
            never enlarged for it.

    Returns:
        ``size``, ``longer``, and the reason as text.
    """
    boxes = boxes_at_training_size(data, dataclasses.replace(preprocessing, resize="none"))
    shorter = int(np.median(data.annotations.sizes.min(axis=1)))
    if not len(boxes.labels):
        size = min(shorter, MOST)
        return size, _longer(size), "as large as the images, because there are no boxes"
    small = float(np.percentile(boxes.sides, SMALL))
    wanted = shorter * side / small
    limited = min(max(wanted, min(LEAST, shorter)), shorter, MOST)
    multiple = preprocessing.multiple  # images are padded to it anyway
    size = min(max(multiple, math.ceil((limited - 1) / multiple) * multiple), shorter, MOST)
    now = small * size / shorter
    reason = f"the small boxes (fifth percentile) have {small:.0f} px in the files and {now:.0f} px at this size"
    if wanted > limited * 1.01:
        enlarged = limited == shorter
        why = "images are only enlarged if you give a larger size" if enlarged else "larger takes too long"
        reason += f"; {side:.0f} would be better, but {why}"
    return size, _longer(size), reason


def _longer(size: int) -> int:
    """The limit on the longer side, in the paper's ratio of 1333 to 800."""
    return math.ceil(size * 5 / 3)


def lost_boxes(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> tuple[float, str | None]:
    """Find the boxes on which no anchor is trained.

    Returns:
        The share of the boxes that the anchors cover, and a line about the lost boxes, or None if there are none. Below
        95 % the line says what would help. Boxes smaller than a pixel are lost with any anchors.
    """
    boxes = boxes_at_training_size(data, model.preprocessing)
    best = best_anchors(boxes, model.anchors)[0]
    covered = best >= matching.foreground
    share = float(covered.mean()) if len(covered) else 1.0
    matched = best > 0 if matching.low_quality else covered
    is_lost = ~matched | (boxes.sides < PIXEL)
    if not is_lost.any():
        return share, None
    lost = boxes.sides[is_lost]
    counts = np.bincount(boxes.labels[is_lost], minlength=len(data.class_names))
    worst = [f"{data.class_names[i]} {counts[i]}" for i in np.argsort(-counts, kind="stable")[:3] if counts[i]]
    low, middle, high = (f"{side:.{0 if side >= PIXEL else 2}f}" for side in np.percentile(lost, [5, 50, 95]))
    span = f"{low} px" if low == high else f"{low} to {high} px (median {middle})"
    line = (
        f"the anchors cover {share_text(share)} of the boxes; {len(lost)} cannot be trained on: {span} at the training "
        f"size, most of {', '.join(worst)}"
    )
    harmless = share >= ENOUGH or matching.low_quality
    return share, "; ".join([line, *(() if harmless else _remedies(data, model, matching, share))])


def _remedies(data: DetectionData, model: ModelSettings, matching: MatchingSettings, share: float) -> list[str]:
    """Settings that would cover clearly more boxes, as text."""
    fitted = fit_anchors(data, model, matching).after
    remedies = []
    if fitted > share + CLEARLY:
        remedies.append(f"--anchors auto would cover {share_text(fitted)}")
    preprocessing = model.preprocessing
    if fitted < ENOUGH and preprocessing.resize == "shorter":
        size, longer = 2 * preprocessing.size, 2 * preprocessing.longer
        twice = dataclasses.replace(preprocessing, size=size, longer=longer)
        larger = fit_anchors(data, dataclasses.replace(model, preprocessing=twice), matching).after
        if larger > max(fitted, share) + CLEARLY:
            also = f"--anchors auto with --model.preprocessing.size {size} --model.preprocessing.longer {longer}"
            enlarged = size > np.median(data.annotations.sizes.min(axis=1))
            cost = "in four times the time" + ", as it enlarges the images" * bool(enlarged)
            remedies.append(f"{also} would cover {share_text(larger)} {cost}")
    return remedies or ["neither other anchors nor twice the size would cover clearly more: these will be missed"]


def fit_model(
    data: DetectionData, settings: Settings, fixed: Collection[str], device: str, anchors: bool = True
) -> tuple[Settings, list[Choice]]:
    """Choose image size and anchors for the data.

    Args:
        fixed: dotted names of settings that the user gave; related settings are not changed.
        device: "cpu", "cuda", ...
        anchors: whether anchors are fitted too.
    """
    choices = []
    preprocessing = settings.model.preprocessing
    if preprocessing.resize == "shorter" and not any(name.startswith("model.preprocessing.") for name in fixed):
        size, longer, why = fit_size(data, preprocessing, SIDE.get(device, SIDE["cuda"]))
        choices.append(Choice("model.preprocessing.size", size, why))
        choices.append(Choice("model.preprocessing.longer", longer, "5/3 of it, the paper's 1333 to 800"))
        settings = with_choices(settings, choices)
    if anchors and not any(name.startswith("model.anchors.") for name in fixed):
        fitted = fit_anchors(data, settings.model, settings.matching).choices(settings.model.anchors)
        settings = with_choices(settings, fitted)
        choices += fitted
    return settings, choices


def with_choices(settings: Settings, choices: Iterable[Choice]) -> Settings:
    """The settings with all choices applied."""
    return changed(settings, {choice.setting: choice.value for choice in choices})
