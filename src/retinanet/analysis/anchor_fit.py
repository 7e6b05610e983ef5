"""Image size and anchors that suit a data set.

Anchors are fitted by a search over a handful of numbers, scored by the IoU of boxes with their best anchors. It draws
nothing at random and looks at a fixed number of boxes, so the same data give the same anchors, in seconds.
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
from retinanet.config.settings import (
    AnchorSettings,
    MatchingSettings,
    ModelSettings,
    PreprocessingSettings,
    Settings,
    changed,
)
from retinanet.data.dataset import DetectionData

LOOKED_AT = 3000  # boxes that the search scores; more change the third digit
COUNTED = 200_000  # boxes at most over which its shares are told
SMALL = 5.0  # percentile: the image size is chosen for the smallest boxes but these
LEAST, MOST = 224, 800  # sizes that are chosen; the paper's is 800
WORTH = 0.05  # P2 costs more than the rest of the network: only for so many more of the boxes covered
NEEDLESS = 0.002  # a coarse level goes if no more than this share of the boxes has its best anchor there
ENOUGH = 0.95  # coverage below which a user is told
CLEARLY = 0.005
PIXEL = 1.0  # pixels at the training size: less shows nothing of an object
COARSEST = 7
SIDE = {"cpu": 24.0, "cuda": 40.0}  # pixels that small objects get: a CPU has time for fewer
# Base size over stride of the first level, to begin with: 4 in the paper, 1 where objects are as small as cells.
BASES = tuple(2 ** (i / 3) for i in range(8))


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen for the user, and why."""

    setting: str
    """Its dotted name."""
    value: Any
    reason: str

    def plain(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"setting": self.setting, "value": value, "reason": self.reason}


@dataclass(frozen=True)
class FittedAnchors:
    settings: AnchorSettings
    before: float
    """Share of the boxes that the anchors covered before."""
    after: float
    """And now."""

    def choices(self, was: AnchorSettings) -> list[Choice]:
        names = "P" + (f"{self.settings.levels[0]} to P{self.settings.levels[-1]}")
        told = (
            f"the best anchor reaches the foreground IoU for {share_text(self.after)} of the boxes, "
            f"{share_text(self.before)} with the anchors of the recipe"
        )
        reasons = {
            "sizes": told,
            "ratios": "the shapes of the boxes",
            "first_level": f"levels {names}: where boxes have their best anchors",
        }
        return [
            Choice(f"model.anchors.{name}", getattr(self.settings, name), reason)
            for name, reason in reasons.items()
            if getattr(self.settings, name) != getattr(was, name)
        ]


def fit_anchors(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> FittedAnchors:
    """Sizes, ratios and levels for the boxes of ``data`` in images of ``model``'s size.

    There stay as many anchors at a position as before (scales times ratios), so weights of a trained model fit.
    The present settings are among what is compared: the result covers no fewer boxes, on those looked at.
    """
    boxes = boxes_at_training_size(data, model.preprocessing).sample(COUNTED)
    was = model.anchors
    if not len(boxes.labels):
        return FittedAnchors(was, 1.0, 1.0)
    search = _Search(boxes.sample(LOOKED_AT), was, matching.foreground)
    found = search.best(first_level=3)
    if found.share < 1 - WORTH:
        finer = search.best(first_level=2)
        if finer.share > found.share + WORTH:
            found = finer
    before = float((best_anchors(boxes, was)[0] >= matching.foreground).mean())
    present = search.score(was)
    if present.value >= found.value:
        found = present
    best, level_of = best_anchors(boxes, found.settings)
    settings = _without_coarse(found.settings, level_of)
    after = float((best >= matching.foreground).mean())
    if settings != found.settings:
        after = float((best_anchors(boxes, settings)[0] >= matching.foreground).mean())
    return FittedAnchors(settings, before, after)


def _without_coarse(settings: AnchorSettings, level_of: NDArray[np.int8]) -> AnchorSettings:
    """Without the coarse levels that hardly any box needs."""
    count = len(settings.sizes)
    while count > 1 and (level_of >= count - 1).mean() <= NEEDLESS:
        count -= 1
    return dataclasses.replace(settings, sizes=settings.sizes[:count])


@dataclass(frozen=True)
class _Scored:
    settings: AnchorSettings
    value: float
    share: float


class _Search:
    """A box is worth the more, up to an IoU somewhat above the foreground's, the better its best anchor fits.

    Classes with few boxes weigh more than their boxes alone would: by the square root of their share.
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
        """Levels from ``first_level`` to P7, sizes an octave apart as in the paper."""
        shapes = self._shapes()
        tried = [self.score(self._make(first_level, base, ratios)) for base in BASES for ratios in shapes]
        found = max(tried, key=lambda scored: scored.value)
        for step in (2 ** (1 / 6), 2 ** (1 / 12)):  # then nearer, one number at a time, while it gets better
            while True:
                near = [self.score(settings) for settings in _neighbours(found.settings, step)]
                nearest = max(near, key=lambda scored: scored.value)
                if nearest.value <= found.value + 1e-4:
                    break
                found = nearest
        return found

    def _make(self, first_level: int, base: float, ratios: tuple[float, ...]) -> AnchorSettings:
        sizes = tuple(_round(base * 2**level) for level in range(first_level, COARSEST + 1))
        return dataclasses.replace(self.settings, first_level=first_level, sizes=sizes, ratios=ratios)

    def _shapes(self) -> list[tuple[float, ...]]:
        """Ratios to begin with: as they are, and spread over those of the boxes."""
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
    result = []
    for factor in (step, 1 / step):
        sizes = tuple(_round(size * factor) for size in settings.sizes)
        result.append(dataclasses.replace(settings, sizes=sizes))
        for i, ratio in enumerate(settings.ratios):
            ratios = sorted((*settings.ratios[:i], _round(ratio * factor), *settings.ratios[i + 1 :]))
            result.append(dataclasses.replace(settings, ratios=tuple(ratios)))
    return result


def _round(value: float) -> float:
    """Three digits are enough for an anchor, and can be read."""
    return float(f"{value:.3g}")


def fit_size(data: DetectionData, preprocessing: PreprocessingSettings, side: float) -> tuple[int, int, str]:
    """Shorter and longer side of the images, as small as the small boxes allow: time grows with its square.

    Args:
        side: the smallest boxes (those at the fifth percentile, by the square root of their area) get about this many
            pixels. Images are never enlarged for it.

    Returns:
        ``size``, ``longer``, and the reason in words.
    """
    boxes = boxes_at_training_size(data, dataclasses.replace(preprocessing, resize="none"))
    shorter = int(np.median(data.annotations.sizes.min(axis=1)))
    if not len(boxes.labels):
        size = min(shorter, MOST)
        return size, _longer(size), "as large as the images, for there is no box to go by"
    small = float(np.percentile(boxes.sides, SMALL))
    wanted = shorter * side / small
    limited = min(max(wanted, min(LEAST, shorter)), shorter, MOST)
    multiple = preprocessing.multiple  # what is more than one is padding anyway
    size = min(max(multiple, math.ceil((limited - 1) / multiple) * multiple), shorter, MOST)
    now = small * size / shorter
    words = f"the small boxes (fifth percentile) are {small:.0f} px in the files and {now:.0f} px then"
    if wanted > limited * 1.01:
        enlarged = limited == shorter
        why = "images are enlarged only if you give a larger size" if enlarged else "larger takes too long"
        words += f"; {side:.0f} would be better, but {why}"
    return size, _longer(size), words


def _longer(size: int) -> int:
    """The paper's 1333 to 800."""
    return math.ceil(size * 5 / 3)


def lost_boxes(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> tuple[float, str | None]:
    """The share of the boxes that the anchors cover, and a line on those that cannot be learnt, None without such.

    Below 95 % the line says what would save them. What is smaller than a pixel is lost whatever the anchors are.
    """
    boxes = boxes_at_training_size(data, model.preprocessing)
    best = best_anchors(boxes, model.anchors)[0]
    covered = best >= matching.foreground
    share = float(covered.mean()) if len(covered) else 1.0
    matched = best > 0 if matching.low_quality else covered
    unlearnt = ~matched | (boxes.sides < PIXEL)
    if not unlearnt.any():
        return share, None
    lost = boxes.sides[unlearnt]
    counts = np.bincount(boxes.labels[unlearnt], minlength=len(data.class_names))
    worst = [f"{data.class_names[i]} {counts[i]}" for i in np.argsort(-counts, kind="stable")[:3] if counts[i]]
    low, middle, high = (f"{side:.{0 if side >= PIXEL else 2}f}" for side in np.percentile(lost, [5, 50, 95]))
    span = f"{low} px" if low == high else f"{low} to {high} px (median {middle})"
    said = (
        f"the anchors cover {share_text(share)} of the boxes; {len(lost)} cannot be learnt: {span} at the training "
        f"size, the most of {', '.join(worst)}"
    )
    few = share >= ENOUGH or matching.low_quality
    return share, "; ".join([said, *(() if few else _remedies(data, model, matching, share))])


def _remedies(data: DetectionData, model: ModelSettings, matching: MatchingSettings, share: float) -> list[str]:
    """Settings that would cover clearly more, each with how much."""
    fitted = fit_anchors(data, model, matching).after
    said = []
    if fitted > share + CLEARLY:
        said.append(f"--anchors auto would cover {share_text(fitted)}")
    preprocessing = model.preprocessing
    if fitted < ENOUGH and preprocessing.resize == "shorter":
        size, longer = 2 * preprocessing.size, 2 * preprocessing.longer
        twice = dataclasses.replace(preprocessing, size=size, longer=longer)
        larger = fit_anchors(data, dataclasses.replace(model, preprocessing=twice), matching).after
        if larger > max(fitted, share) + CLEARLY:
            also = f"--anchors auto with --model.preprocessing.size {size} --model.preprocessing.longer {longer}"
            enlarged = size > np.median(data.annotations.sizes.min(axis=1))
            cost = "for four times the time" + ", as it enlarges the images" * bool(enlarged)
            said.append(f"{also} would cover {share_text(larger)} {cost}")
    return said or ["neither other anchors nor twice the size would cover clearly more: expect these to be missed"]


def fit_model(
    data: DetectionData, settings: Settings, fixed: Collection[str], device: str, anchors: bool = True
) -> tuple[Settings, list[Choice]]:
    """Image size and anchors for the data.

    Args:
        fixed: dotted names of settings that the user gave; what belongs to them is left alone.
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
        made = fit_anchors(data, settings.model, settings.matching).choices(settings.model.anchors)
        settings = with_choices(settings, made)
        choices += made
    return settings, choices


def with_choices(settings: Settings, choices: Iterable[Choice]) -> Settings:
    return changed(settings, {choice.setting: choice.value for choice in choices})
