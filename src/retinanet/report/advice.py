"""What to do next, as the numbers of a run suggest it: first whether the run was long enough to tell."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from retinanet.config.settings import STARTS, Settings, seconds
from retinanet.evaluation.confusion import Confusion
from retinanet.report.page import count, duration, known, plural, score, share
from retinanet.report.run_charts import series, smooth
from retinanet.report.run_facts import RunFacts

RISE = 0.01
"""AP that a run has to gain in its last third, so that a longer run is worth its time."""
COSTS = 0.03
"""A kind of error that costs less AP50 than this is not mentioned."""
HARDLY = 0.05
"""With a best F1 below this the kinds of errors and the classes say nothing yet."""
WAITS = 0.3
"""Share of the time that may be spent waiting for images."""
ERROR_KINDS = {
    "class": "detections with the wrong class (class confusion)",
    "location": "detections with an inaccurate box",
    "both": "detections with the wrong class and an inaccurate box",
    "duplicate": "duplicate detections of one object",
    "background": "false positives on background",
    "missed": "missed objects, with no detection near them (false negatives)",
}
"""What the kinds of errors are."""
AUGMENT = "`--data.augmentation.crop 0.5` and `--data.augmentation.colour 0.5`"


def advise(facts: RunFacts) -> list[str]:
    """What to do next, the most promising first; settings stand between backticks. Never empty."""
    ap = facts.stats.get("AP")
    if not known(ap) or (ap is not None and ap < 0):
        return [
            f"The split {facts.data.split} has no boxes, so AP could not be computed. Choose a split: `--data.val`."
        ]
    length = run_length(facts)
    if facts.curves.best_f1 < HARDLY:
        return _hardly_right(facts, length)
    advice = [*length, *_errors(facts, "" if length else f" {_longer(facts)}."), *_overfitting(facts)]
    anchors = _anchors(facts)
    if anchors and not any(anchors in line for line in advice):
        advice.append(anchors)
    advice += [*_rare_classes(facts), *_waiting(facts)]
    return advice or ["No single problem stands out. The usual next steps are more images or a larger backbone."]


def run_length(facts: RunFacts) -> list[str]:
    """One line on the steps made, where they are fewer than planned or needed, or where AP was still rising."""
    steps, ap = series(facts.metrics, "AP")
    before = float(np.interp(facts.steps * 2 / 3, steps, ap)) if len(steps) > 1 else math.inf
    rising = len(steps) > 1 and int(ap.argmax()) == len(ap) - 1 and ap[-1] - before > RISE
    short = facts.steps_needed is not None and facts.steps < 0.9 * facts.steps_needed
    stopped, made = _made(facts)
    if not (rising or short or stopped):
        return []
    lines = [made]
    if short:
        classes = plural(len(facts.per_class), "class needs", "classes need")
        lines.append(f"{_start(facts.settings)}{classes} about {count(facts.steps_needed)} steps or more.")
    if rising:
        lines.append(
            f"AP was still rising at the end: from {score(before)} to {score(ap[-1])} in the last third of the run."
        )
    lines.append(f"Continue it: `retinanet train --resume {facts.folder}`." if stopped else f"{_longer(facts)}.")
    return [" ".join(lines)]


def _start(settings: Settings) -> str:
    """What the run started from, as the beginning of a sentence."""
    if settings.train.weights not in STARTS:
        return ""
    pretrained = settings.train.weights == "imagenet" or settings.model.backbone.weights != "none"
    return "With new heads on a pretrained backbone, " if pretrained else "From random weights, "


def _made(facts: RunFacts) -> tuple[bool, str]:
    """Whether the run stopped before its planned end, and a sentence on how many of its steps it made."""
    train = facts.settings.train
    last = [float(row["epoch"]) for row in facts.metrics if row.get("epoch") not in (None, "")][-1:]
    epochs = f" ({last[0]:.3g} epochs)" if last else ""
    made = f"The run made {plural(facts.steps, 'step')}{epochs}"
    if train.patience is not None or train.budget is not None:
        return False, made + (f" in its budget of {train.budget}." if train.budget else ".")
    planned = train.steps
    if planned is None and last and last[0]:
        planned = round(facts.steps * (train.epochs or 12) / last[0])
    if planned is None or facts.steps >= 0.98 * planned:
        return False, made + ("." if planned is None else ", as planned.")
    return True, f"The run stopped after {count(facts.steps)} of {count(planned)} planned steps{epochs}."


def _hardly_right(facts: RunFacts, length: list[str]) -> list[str]:
    right = "Hardly any" if facts.curves.best_f1 or facts.errors.ap50 else "No"
    advice = [*length, f"{right} detection is right, so the numbers below mean little."]
    if anchors := _anchors(facts):
        advice.append(anchors)
    steps, loss = series(facts.metrics, "class_loss")
    if len(steps) >= 10:
        mean = smooth(loss)
        if mean[-1] > 0.9 * mean[: max(1, len(mean) // 10)].max():
            lr = facts.settings.train.lr
            advice.append(
                f"The class loss has hardly fallen (from {mean[0]:.3g} to {mean[-1]:.3g}). Try another learning rate: "
                f"`--train.lr {3 * lr:.3g}` or `--train.lr {lr / 3:.3g}`."
            )
    if not length:
        advice.append(f"{count(facts.steps)} steps may be too few. {_longer(facts)}.")
    if facts.settings.model.backbone.weights == facts.settings.train.weights == "none":
        usual = "from random weights. Pretrained ones need far fewer of your images: `--train.weights imagenet`"
        advice.append(f"The run started {facts.start or usual}.")
    return [*advice, *_waiting(facts)]


def _errors(facts: RunFacts, longer: str) -> Iterable[str]:
    """The kind of error that costs most, and the next one if it costs nearly as much.

    Args:
        longer: the advice to train longer, after a space; empty where it was given before.
    """
    cost, counts = facts.errors.cost, facts.errors.counts
    first, second = sorted(cost, key=lambda kind: -cost[kind])[:2]
    for kind in (first, second):
        if cost[kind] >= max(COSTS, 0.6 * cost[first]):
            rank = "The most costly errors" if cost[kind] == cost[first] else "The next most costly errors"
            price = f"{count(counts[kind])} at the score threshold {score(facts.threshold, 2)}"
            yield (
                f"{rank} are {ERROR_KINDS[kind]}: {price}. Without them AP50 would be {score(cost[kind])} higher. "
                f"{_remedy(kind, facts, longer)}"
            )


def _remedy(kind: str, facts: RunFacts, longer: str) -> str:
    settings = facts.settings
    if kind == "missed":
        if anchors := _anchors(facts):
            return anchors
        if _small_are_worse(facts):
            return f"Small objects have the lowest AP (APs {score(facts.stats.get('APs'))}). {_larger(settings)}."
        return f"They probably look different from the training images. Label more images like those below.{longer}"
    if kind == "location":
        box = "" if settings.loss.box == "giou" else "Train on the overlap itself: `--loss.box giou`. "
        return f"{box}Check in the images below whether the labelled boxes are tight.{longer}"
    if kind == "class":
        truth, detected, number = most_confused(facts.confusion) or ("", "", 0)
        inner = np.array(facts.confusion.matrix)[:-1, :-1]
        if number < max(3, 0.1 * (inner.sum() - np.trace(inner))):
            return "They are spread over many pairs of classes. More images or a larger backbone would help."
        return (
            f"Most often {truth} is detected as {detected} ({count(number)} times). Add images of both classes, and "
            "check that they are labelled consistently."
        )
    if kind == "background":
        most = most_invented(facts.confusion)
        which = f" Most detections that match no object are {most[0]}." if most else ""
        return (
            f"Add images without objects that show such background.{which} Also check in the images below whether "
            "some of these are objects that nobody labelled."
        )
    if kind == "duplicate":
        lower = max(0.1, settings.model.postprocessing.nms_iou - 0.1)
        return f"Let NMS remove more overlapping boxes: `--model.postprocessing.nms_iou {lower:.2g}`."
    return f"Such errors become fewer with more training.{longer}"


def most_confused(confusion: Confusion) -> tuple[str, str, int] | None:
    """The most frequent class confusion: true class, detected class, count; None if there is none."""
    inner = np.array(confusion.matrix)[:-1, :-1]
    np.fill_diagonal(inner, 0)
    if not inner.any():
        return None
    truth, detected = np.unravel_index(int(inner.argmax()), inner.shape)
    return confusion.names[truth], confusion.names[detected], int(inner.max())


def most_invented(confusion: Confusion) -> tuple[str, int] | None:
    """The class with the most detections that match no object, and their count; None if there are none."""
    row = np.array(confusion.matrix)[-1, :-1]
    return (confusion.names[int(row.argmax())], int(row.max())) if row.any() else None


def _overfitting(facts: RunFacts) -> Iterable[str]:
    """Whether AP fell, or no longer rose, while the training loss kept falling."""
    steps, ap = series(facts.metrics, "AP")
    if len(steps) < 3:
        return
    best, last = int(ap.argmax()), len(ap) - 1
    before = float(np.interp(steps[-1] * 2 / 3, steps, ap))
    if best == last and ap[-1] - before > RISE:
        return
    loss_steps, loss = series(facts.metrics, "class_loss")
    if len(loss_steps) < 3:
        return
    mean = smooth(loss)
    loss_at_best, loss_at_end = np.interp([steps[best], steps[last]], loss_steps, mean)
    loss_before = float(np.interp(loss_steps[-1] * 2 / 3, loss_steps, mean))
    if ap[best] - ap[last] > RISE and loss_at_end < loss_at_best:
        yield (
            f"The detector overfits: AP was highest at step {count(steps[best])} ({score(ap[best])}) and is "
            f"{score(ap[-1])} at the end, while the training loss kept falling. Add images, or vary them more with "
            f"{AUGMENT}. `best.safetensors` holds the detector with the highest AP."
        )
    elif ap[-1] - before <= RISE / 5 and mean[-1] < 0.7 * loss_before:
        yield (
            f"The detector overfits: in the last third of the run the class loss fell by "
            f"{share(1 - mean[-1] / loss_before)}, but AP no longer rose. Add images, or vary them more with {AUGMENT}."
        )


def _anchors(facts: RunFacts) -> str:
    """Advice if the anchors cover too few boxes; empty otherwise."""
    if facts.coverage is None or facts.coverage.share >= 0.9:
        return ""
    return (
        f"Only {share(facts.coverage.share)} of the boxes overlap an anchor enough to be trained on. "
        f"`retinanet data {facts.source}` proposes anchors and an image size that fit."
    )


def _rare_classes(facts: RunFacts) -> Iterable[str]:
    """Classes with few boxes and a lower AP than the others."""
    rows = [row for row in facts.per_class if known(row.get("AP")) and row["boxes"]]
    if len(rows) < 2:
        return
    most = max(row["boxes"] for row in rows)
    middle = float(np.median([row["AP"] for row in rows if row["boxes"] >= 0.1 * most]))
    rare = [row for row in rows if row["boxes"] < 0.1 * most and row["AP"] < 0.6 * middle]
    if rare and middle > HARDLY:
        rare.sort(key=lambda row: row["AP"])
        names = ", ".join(f"{row['name']} (AP {score(row['AP'])})" for row in rare[:3])
        more = f" and {len(rare) - 3} more" if len(rare) > 3 else ""
        yield (
            f"Rare classes have a lower AP than the others: {names}{more}. Show their images more often with "
            "`--data.repeat-threshold 0.1`, or collect more images of them."
        )


def _waiting(facts: RunFacts) -> Iterable[str]:
    total, waited = sum(facts.seconds_in.values()), facts.seconds_in.get("data", 0.0)
    if total and waited / total > WAITS:
        workers = facts.settings.data.workers
        option = f"`--data.workers {2 * workers}`" if workers > 0 else "`--data.workers`"
        yield (
            f"The run spent {share(waited / total)} of its time ({duration(waited)}) waiting for images. Load them in "
            f"more processes with {option}, or store smaller images."
        )


def _small_are_worse(facts: RunFacts) -> bool:
    small, others = facts.stats.get("APs"), [facts.stats.get("APm"), facts.stats.get("APl")]
    best = max((value for value in others if value is not None), default=-1.0)
    return small is not None and 0 <= small < 0.6 * best


def _larger(settings: Settings) -> str:
    preprocessing, anchors = settings.model.preprocessing, settings.model.anchors
    words = f"Use larger images, `--model.preprocessing.size {round(preprocessing.size * 1.5)}`"
    if preprocessing.resize == "shorter":
        words += f" with `--model.preprocessing.longer {round(preprocessing.longer * 1.5)}`"
    if anchors.first_level > 2:
        words += f", or add a finer pyramid level, `--model.anchors.first_level {anchors.first_level - 1}`"
    return words


def _longer(facts: RunFacts) -> str:
    """Twice the length of the run or as long as it needs, by the same option."""
    train, needed = facts.settings.train, facts.steps_needed or 0
    factor = max(2.0, needed / max(1, facts.steps))
    if train.steps is not None:
        return f"Train longer: `--train.steps {max(2 * train.steps, needed)}`"
    if train.budget is not None:
        longer = factor * seconds(train.budget)
        unit, size = next(pair for pair in (("h", 3600), ("m", 60), ("s", 0)) if longer >= 2 * pair[1])
        return f"Train longer: `--train.budget {_rounded(longer / (size or 1))}{unit}`"
    return f"Train longer: `--train.epochs {_rounded(factor * (train.epochs or 12))}`"


def _rounded(length: float) -> str:
    """A number up to the next half, or from 10 on to the next multiple of 5, unless it is whole."""
    step = 0.5 if length < 10 else 1 if length == int(length) else 5
    return f"{step * math.ceil(length / step):.6g}"
