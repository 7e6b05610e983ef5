"""``retinanet.evaluate``: a detector on labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.analysis.holdout import open_again, wanted_share
from retinanet.api.loading import load
from retinanet.common.arguments import Nms, whole
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.precision import Request
from retinanet.data import DetectionData, open_data
from retinanet.evaluation.bootstrap import confidence_intervals, match_detections
from retinanet.evaluation.detector_evaluation import DetectorEvaluation, evaluate_detector
from retinanet.inference.detector import Detector
from retinanet.terminal.console import Output
from retinanet.terminal.data_lines import class_line, fault_lines, split_lines
from retinanet.terminal.progress import Progress

if TYPE_CHECKING:
    import torch


def evaluate(
    model: str | Path | Detector,
    data: str | Path | DetectionData,
    split: str = "val",
    *,
    threshold: float | None = None,
    nms: Nms | None = None,
    batch_size: int = 8,
    workers: int = 0,
    resamples: int = 0,
    strict: bool = False,
    device: str | int | torch.device | None = None,
    precision: Request | None = None,
    trust: bool = False,
    progress: bool = True,
) -> DetectorEvaluation:
    """Evaluate a detector on labelled images.

    Examples:
        >>> import retinanet
        >>> result = retinanet.evaluate("runs/mine", "animals", progress=False)
        >>> len(result.detections), len(result.metrics), [row["name"] for row in result.per_class]
        (4, 12, ['cat', 'dog'])

    Args:
        model: a detector, or what :func:`retinanet.load` opens.
        data: what :func:`retinanet.open_data` opens, or what it returned. Classes are matched by name.
        split: the split to evaluate on, if ``data`` is a path. If the model was trained on a data set with a single
            split, "val" is what was held out of it.
        threshold: drop detections with this score or a lower one. By default it is the setting of the model, which is
            low, because AP needs detections of low scores. It is not the threshold of the best F1.
        nms: "agnostic" lets boxes of all classes suppress each other, "class" only those of one class; by default the
            setting of the model.
        batch_size: images of one forward pass.
        workers: processes that load images; 0 loads them in this process.
        resamples: bootstrap draws for the 95 % intervals of AP and AP50, such as 1000. 0 leaves the intervals out.
        strict: refuse a data set with any fault.
        device, precision, trust: see :func:`retinanet.load`; for a ``model`` that is a source.
        progress: show the progress.

    Raises:
        RequestError: the model, the data or a number cannot be used.
    """
    whole("batch_size", batch_size)
    for name, value in (("workers", workers), ("resamples", resamples)):
        whole(name, value, 0)
    if isinstance(model, Detector):
        if device is not None or precision is not None:
            raise RequestError("device and precision are for a model that is loaded here: use detector.to(device)")
        detector = model
    else:
        detector = load(model, device, precision, trust)
    out = Output(quiet=not progress)
    images = images_of(data, split, detector, out, strict)
    with Progress(out) as bars:
        result = evaluate_detector(
            detector,
            images,
            batch_size=batch_size,
            workers=workers,
            threshold=threshold,
            nms=nms,
            on_progress=bars.counter("evaluating"),
        )
        if not resamples:
            return result
        matches, show = match_detections(images, result.detections), bars.counter("bootstrap", "draws")
        intervals = confidence_intervals(matches, resamples=resamples, on_progress=show)
    return dataclasses.replace(result, intervals=intervals)


def images_of(
    data: str | Path | DetectionData, split: str, detector: Detector, out: Output, strict: bool = False
) -> DetectionData:
    """The images to evaluate on, with the classes of the detector. ``out`` notes what they are.

    Raises:
        RequestError: they cannot be opened, or have other classes.
    """
    if not isinstance(data, str | Path | DetectionData):
        raise RequestError(f"data must be a path, or what retinanet.open_data returns, not {shown(data)}")
    if isinstance(data, DetectionData):
        if set(data.class_names) != set(detector.class_names):
            raise RequestError(
                f"{data.root} was opened with other classes than the model has: open it with "
                "class_names=detector.class_names, or give its path"
            )
        return data
    held_out = detector.about.get("held_out")
    with Progress(out) as progress:
        checking = progress.counter("checking")
        if isinstance(held_out, Mapping) and wanted_share(data, split) is not None:
            images = open_again(data, held_out, detector.class_names, checking, strict=strict)
        else:
            images = open_data(data, split, strict=strict, class_names=detector.class_names, on_progress=checking)
    counts = images.counts()
    out.note(*split_lines(images), f"  {class_line(images.class_names, counts)}", *fault_lines(images))
    if absent := [name for name, count in zip(images.class_names, counts) if count == 0]:
        out.note(f"  no boxes of {', '.join(absent)}: these classes have no AP and are left out of the means")
    return images
