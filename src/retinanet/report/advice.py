"""What the numbers of a run say about what to do next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.config.settings import Settings
from retinanet.report.page import count, duration, known, score, share
from retinanet.report.run_charts import course, smooth

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.evaluation.confusion import Confusion
    from retinanet.evaluation.pr_curves import Curves
    from retinanet.evaluation.tide import ErrorCosts

RISE = 0.01
"""AP by which a run has to gain in its last third for a longer one to be worth its time."""
COSTS = 0.03
"""AP50 below which a kind of error is not worth a word."""
WAITS = 0.3
"""Share of the time that may go by waiting for images."""


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run in numbers.

    Attributes:
        folder, data: the run folder and the DATA argument. split: that was measured on.
        stats: COCO's twelve numbers by name, -1 or None where there is no truth.
        per_class: rows of name, AP, AP50 and boxes. metrics: rows of metrics.csv, texts or numbers.
        choices: what was chosen from the data: rows of setting, value and reason.
        threshold: the score above which detections are taken for real.
        seconds_in: seconds by what they were spent on: data, forward, backward, optimiser, evaluation, other.
    """

    folder: Path
    data: Path
    split: str
    steps: int
    seconds: float
    stats: Mapping[str, float | None]
    per_class: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    choices: Sequence[Mapping[str, Any]]
    threshold: float
    seconds_in: Mapping[str, float]
    settings: Settings


def reading(
    facts: RunFacts, curves: Curves, errors: ErrorCosts, confusion: Confusion, coverage: Coverage | None = None
) -> list[str]:
    """What to do next, the most promising first; settings stand between backticks. Never empty."""
    ap = facts.stats.get("AP")
    if not known(ap) or (ap is not None and ap < 0):
        return [f"The split {facts.split} has no boxes, so nothing could be measured: give one with `--data.val`."]
    if not curves.best_f1 and not errors.ap50:
        return _nothing(facts, coverage)
    said = _errors(facts, errors, confusion, coverage) + _course(facts)
    anchors = _anchors(facts, coverage)
    if anchors and not any(anchors in line for line in said):
        said.append(anchors)
    said += _rare(facts) + _waiting(facts)
    return said or ["Nothing stands out. More images, or a larger backbone, are the usual next steps."]


def _nothing(facts: RunFacts, coverage: Coverage | None) -> list[str]:
    said = ["Nothing was found right, so the numbers below say little."]
    if anchors := _anchors(facts, coverage):
        said.append(anchors)
    steps, loss = course(facts.metrics, "class_loss")
    if len(steps) >= 10:
        mean = smooth(loss)
        if mean[-1] > 0.9 * mean[: max(1, len(mean) // 10)].max():
            said.append(
                f"The class loss has hardly fallen (from {mean[0]:.3g} to {mean[-1]:.3g}): try another learning rate, "
                f"`--train.lr {3 * facts.settings.train.lr:.3g}` or `--train.lr {facts.settings.train.lr / 3:.3g}`."
            )
    said.append(f"{count(facts.steps)} steps may be too few: {_longer(facts.settings)}.")
    if facts.settings.model.backbone.weights == facts.settings.train.weights == "none":
        said.append(
            "The backbone began with random weights; one that knows images learns from far fewer of yours: "
            "`--model.backbone.weights imagenet`."
        )
    return said + _waiting(facts)


def _errors(facts: RunFacts, errors: ErrorCosts, confusion: Confusion, coverage: Coverage | None) -> list[str]:
    """The kind of error that costs most, and the next one where it costs nearly as much."""
    order = sorted(errors.cost, key=lambda kind: -errors.cost[kind])
    lead = errors.cost[order[0]]
    return [
        f"{_worth(kind, errors)} {_remedy(kind, facts, confusion, coverage)}"
        for kind in order[:2]
        if errors.cost[kind] >= max(COSTS, 0.6 * lead)
    ]


WORDS = {
    "class": "objects taken for another class",
    "location": "boxes that lie only roughly right",
    "both": "boxes neither in the right place nor of the right class",
    "duplicate": "objects found twice",
    "background": "detections where nothing is",
    "missed": "objects not found at all",
}
"""What the kinds of errors are."""


def _worth(kind: str, errors: ErrorCosts) -> str:
    cost, number = errors.cost[kind], errors.counts[kind]
    first = cost == max(errors.cost.values())
    return f"{'Most' if first else 'Next most'} is lost by {WORDS[kind]}: {count(number)}, worth {score(cost)} of AP50."


def _remedy(kind: str, facts: RunFacts, confusion: Confusion, coverage: Coverage | None) -> str:
    settings = facts.settings
    if kind == "missed":
        if anchors := _anchors(facts, coverage):
            return anchors
        if _small_are_worse(facts):
            return f"Small objects do worst (APs {score(facts.stats.get('APs'))}): {_larger(settings)}."
        return f"They look unlike what was learnt: label more images like those below, or {_longer(settings)}."
    if kind == "location":
        box = "" if settings.loss.box == "giou" else "`--loss.box giou` trains on the overlap itself; "
        return f"{box}{_longer(settings)}; and look below whether the labels themselves fit tightly."
    if kind == "class":
        pair = confused(confusion)
        inner = np.array(confusion.matrix)[:-1, :-1]
        truth, taken, number = pair or ("", "", 0)
        if number < max(3, 0.1 * (inner.sum() - np.trace(inner))):
            return "They are spread over many pairs of classes; more images, or a larger backbone, tell them apart."
        return (
            f"{truth} is most often taken for {taken} ({count(number)} times): more images of both, and check that "
            "they are labelled alike everywhere."
        )
    if kind == "background":
        most = invented(confusion)
        which = f", most often as {most[0]} ({count(most[1])} times at the best threshold)" if most else ""
        return (
            f"Add images without any object that show what is taken for one{which}; and look below whether some of "
            "these are objects that nobody labelled."
        )
    if kind == "duplicate":
        lower = max(0.1, settings.model.postprocessing.nms_iou - 0.1)
        return f"Drop more of what overlaps: `--model.postprocessing.nms_iou {lower:.2g}`."
    return f"These fade with training: {_longer(settings)}."


def confused(confusion: Confusion) -> tuple[str, str, int] | None:
    """The two classes that are confused most: truth, what it was taken for, how often; None where none are."""
    inner = np.array(confusion.matrix)[:-1, :-1]
    np.fill_diagonal(inner, 0)
    if not inner.any():
        return None
    truth, taken = np.unravel_index(int(inner.argmax()), inner.shape)
    return confusion.names[truth], confusion.names[taken], int(inner.max())


def invented(confusion: Confusion) -> tuple[str, int] | None:
    """The class that is found most often where nothing is, and how often; None where none is."""
    row = np.array(confusion.matrix)[-1, :-1]
    return (confusion.names[int(row.argmax())], int(row.max())) if row.any() else None


def _course(facts: RunFacts) -> list[str]:
    """Whether the run was too short or too long."""
    steps, ap = course(facts.metrics, "AP")
    if len(steps) < 3:
        return []
    best, last = int(ap.argmax()), len(ap) - 1
    before = float(np.interp(steps[-1] * 2 / 3, steps, ap))
    if best == last and ap[-1] - before > RISE:
        return [
            f"AP still rose at the end, from {score(before)} to {score(ap[-1])} in the last third of the run: "
            f"{_longer(facts.settings)}."
        ]
    loss_steps, loss = course(facts.metrics, "class_loss")
    if len(loss_steps) < 3:
        return []
    mean = smooth(loss)
    then, now = np.interp([steps[best], steps[last]], loss_steps, mean)
    if ap[best] - ap[last] > RISE and now < then:
        return [
            f"AP was highest at step {count(steps[best])} ({score(ap[best])}) and is {score(ap[-1])} at the end, while "
            "the training loss went on falling: the detector learns its images by heart. More images, or more of "
            "each with `--data.augmentation.crop 0.5` and `--data.augmentation.colour 0.5`; `best.safetensors` holds "
            "the better one."
        ]
    third = float(np.interp(loss_steps[-1] * 2 / 3, loss_steps, mean))
    if ap[-1] - before <= RISE / 5 and mean[-1] < 0.7 * third:
        return [
            f"The class loss in training still fell by {share(1 - mean[-1] / third)} in the last third of the run, but "
            "AP no longer rose: the detector learns its images by heart. More images help, or more of each with "
            "`--data.augmentation.crop 0.5` and `--data.augmentation.colour 0.5`."
        ]
    return []


def _anchors(facts: RunFacts, coverage: Coverage | None) -> str:
    """Where many boxes cannot be learnt; empty elsewhere."""
    if coverage is None or coverage.share >= 0.9:
        return ""
    return (
        f"Only {share(coverage.share)} of the boxes have an anchor that may learn them: `retinanet data {facts.data}` "
        "proposes anchors and an image size that fit."
    )


def _rare(facts: RunFacts) -> list[str]:
    """Classes with few boxes that are found worse than the others."""
    rows = [row for row in facts.per_class if known(row.get("AP")) and row["boxes"]]
    if len(rows) < 2:
        return []
    most = max(row["boxes"] for row in rows)
    middle = float(np.median([row["AP"] for row in rows if row["boxes"] >= 0.1 * most]))
    rare = [row for row in rows if row["boxes"] < 0.1 * most and row["AP"] < 0.6 * middle]
    if not rare:
        return []
    rare.sort(key=lambda row: row["AP"])
    names = ", ".join(f"{row['name']} (AP {score(row['AP'])})" for row in rare[:3])
    more = f" and {len(rare) - 3} more" if len(rare) > 3 else ""
    return [
        f"Rare classes do worse than the others: {names}{more}. Show their images more often, "
        "`--data.repeat-threshold 0.1`, or collect more of them."
    ]


def _waiting(facts: RunFacts) -> list[str]:
    total = sum(facts.seconds_in.values())
    waited = facts.seconds_in.get("data", 0.0)
    if not total or waited / total <= WAITS:
        return []
    workers = facts.settings.data.workers
    more = f"`--data.workers {2 * workers}`" if workers > 0 else "more of them with `--data.workers`"
    return [
        f"{share(waited / total)} of the time ({duration(waited)}) went by waiting for images: load them in more "
        f"processes, {more}, or store them smaller."
    ]


def _small_are_worse(facts: RunFacts) -> bool:
    small, others = facts.stats.get("APs"), [facts.stats.get("APm"), facts.stats.get("APl")]
    best = max((value for value in others if value is not None), default=-1.0)
    return small is not None and 0 <= small < 0.6 * best


def _larger(settings: Settings) -> str:
    preprocessing, anchors = settings.model.preprocessing, settings.model.anchors
    words = f"larger images show them better, `--model.preprocessing.size {round(preprocessing.size * 1.5)}`"
    if preprocessing.resize == "shorter":
        words += f" with `--model.preprocessing.longer {round(preprocessing.longer * 1.5)}`"
    if anchors.first_level > 2:
        words += f", and so does a finer pyramid level, `--model.anchors.first_level {anchors.first_level - 1}`"
    return words


def _longer(settings: Settings) -> str:
    """Twice the length of the run, in the words it was given in."""
    train = settings.train
    if train.steps is not None:
        return f"train longer, `--train.steps {2 * train.steps}`"
    if train.budget is not None:
        return f"train longer, `--train.budget {2 * float(train.budget[:-1]):g}{train.budget[-1]}`"
    return f"train longer, `--train.epochs {2 * (train.epochs or 12):g}`"
