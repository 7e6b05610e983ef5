"""What to do next, as the numbers of a run suggest it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from retinanet.config.settings import Settings
from retinanet.evaluation.confusion import Confusion
from retinanet.report.page import count, duration, known, score, share
from retinanet.report.run_charts import series, smooth
from retinanet.report.run_facts import RunFacts

RISE = 0.01
"""AP that a run has to gain in its last third, so that a longer run is worth its time."""
COSTS = 0.03
"""A kind of error that costs less AP50 than this is not mentioned."""
WAITS = 0.3
"""Share of the time that may be spent waiting for images."""
ERROR_KINDS = {
    "class": "detections with the wrong class (class confusion)",
    "location": "detections with an inaccurate box",
    "both": "detections with the wrong class and an inaccurate box",
    "duplicate": "duplicate detections of one object",
    "background": "false positives on background",
    "missed": "missed objects (false negatives)",
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
    if not facts.curves.best_f1 and not facts.errors.ap50:
        return _nothing_right(facts)
    advice = [*_errors(facts), *_course(facts)]
    anchors = _anchors(facts)
    if anchors and not any(anchors in line for line in advice):
        advice.append(anchors)
    advice += [*_rare_classes(facts), *_waiting(facts)]
    return advice or ["No single problem stands out. The usual next steps are more images or a larger backbone."]


def _nothing_right(facts: RunFacts) -> list[str]:
    advice = ["No detection is right, so the numbers below mean little."]
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
    advice.append(f"{count(facts.steps)} steps may be too few. {_longer(facts.settings)}.")
    if facts.settings.model.backbone.weights == facts.settings.train.weights == "none":
        advice.append(
            "The backbone started from random weights. A pretrained backbone needs far fewer of your images: "
            "`--train.weights imagenet`, or the path of a weight file."
        )
    return [*advice, *_waiting(facts)]


def _errors(facts: RunFacts) -> Iterable[str]:
    """The kind of error that costs most, and the next one if it costs nearly as much."""
    cost, counts = facts.errors.cost, facts.errors.counts
    first, second = sorted(cost, key=lambda kind: -cost[kind])[:2]
    for kind in (first, second):
        if cost[kind] >= max(COSTS, 0.6 * cost[first]):
            rank = "The most costly errors" if cost[kind] == cost[first] else "The next most costly errors"
            price = f"{count(counts[kind])} of them cost {score(cost[kind])} AP50"
            yield f"{rank} are {ERROR_KINDS[kind]}: {price}. {_remedy(kind, facts)}"


def _remedy(kind: str, facts: RunFacts) -> str:
    settings = facts.settings
    if kind == "missed":
        if anchors := _anchors(facts):
            return anchors
        if _small_are_worse(facts):
            return f"Small objects have the lowest AP (APs {score(facts.stats.get('APs'))}). {_larger(settings)}."
        return (
            "They probably look different from the training images. Label more images like those below. "
            f"{_longer(settings)}."
        )
    if kind == "location":
        box = "" if settings.loss.box == "giou" else "Train on the overlap itself: `--loss.box giou`. "
        return f"{box}{_longer(settings)}. Also check in the images below whether the labelled boxes are tight."
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
        which = f" Most are detected as {most[0]} ({count(most[1])} at the best threshold)." if most else ""
        return (
            f"Add images without objects that show such background.{which} Also check in the images below whether "
            "some of these are objects that nobody labelled."
        )
    if kind == "duplicate":
        lower = max(0.1, settings.model.postprocessing.nms_iou - 0.1)
        return f"Let NMS remove more overlapping boxes: `--model.postprocessing.nms_iou {lower:.2g}`."
    return f"Such errors become fewer with more training. {_longer(settings)}."


def most_confused(confusion: Confusion) -> tuple[str, str, int] | None:
    """The most frequent class confusion: true class, detected class, count; None if there is none."""
    inner = np.array(confusion.matrix)[:-1, :-1]
    np.fill_diagonal(inner, 0)
    if not inner.any():
        return None
    truth, detected = np.unravel_index(int(inner.argmax()), inner.shape)
    return confusion.names[truth], confusion.names[detected], int(inner.max())


def most_invented(confusion: Confusion) -> tuple[str, int] | None:
    """The class with the most false positives on background, and their count; None if there are none."""
    row = np.array(confusion.matrix)[-1, :-1]
    return (confusion.names[int(row.argmax())], int(row.max())) if row.any() else None


def _course(facts: RunFacts) -> Iterable[str]:
    """Whether the run was too short, or overfitted."""
    steps, ap = series(facts.metrics, "AP")
    if len(steps) < 3:
        return
    best, last = int(ap.argmax()), len(ap) - 1
    before = float(np.interp(steps[-1] * 2 / 3, steps, ap))
    if best == last and ap[-1] - before > RISE:
        yield (
            f"AP was still rising at the end: from {score(before)} to {score(ap[-1])} in the last third of the run. "
            f"{_longer(facts.settings)}."
        )
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
    if rare:
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


def _longer(settings: Settings) -> str:
    """Twice the length of the run, by the same option."""
    train = settings.train
    if train.steps is not None:
        return f"Train longer: `--train.steps {2 * train.steps}`"
    if train.budget is not None:
        return f"Train longer: `--train.budget {2 * float(train.budget[:-1]):g}{train.budget[-1]}`"
    return f"Train longer: `--train.epochs {2 * (train.epochs or 12):g}`"
