"""Comparison of an exported file with the model that it was made from, on images.

An untrained model detects nothing, so comparing detections is not enough. Three things are compared:

- the outputs of the network, relative to their spread;
- of a complete file the input that it makes of images, and its post-processing with all thresholds at 0, so that there
  are detections whatever the model was trained on; ours processes the same outputs;
- the detections of the file and of the model: same number and labels, boxes to 0.5 pixels, scores to 0.001. Where a
  score or an overlap is at a limit, rounding decides; a few such differences are allowed.

A network in bf16 or int8 has other outputs. They must correlate with the model's, and the share of its boxes that the
export has too is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import WorkError
from retinanet.exporting.box_recall import recall_counts
from retinanet.exporting.detector_agreement import Agreement
from retinanet.exporting.onnx.onnx_runtime import OnnxDetector, open_inside
from retinanet.inference.detector import Detector
from retinanet.ops.image_batch import ImageBatch
from retinanet.ops.network_outputs import Outputs

OUTPUTS = 1e-3
"""The largest difference of the network's outputs, in standard deviations of the outputs."""
LEAST_CORRELATION = {"bf16": 0.99, "int8": 0.9}
"""How much the outputs of a coarser network must correlate with the model's: 0 is noise, 1 the same."""
GREY = {"antialias": 1.01, "pillow": 1.01}
"""The largest difference of a resized image in grey levels of 255, by interpolation; 0.05 for others. Which axis Pillow
resizes first depends on its version and on the image, and the other order rounds some pixels to the next level. So does
float32 where images shrink to less than a quarter."""
SHAPES = ((480, 640), (480, 640), (427, 300), (60, 400), (20, 30))


def made_images() -> list[Tensor]:
    """Images (3, H, W) uint8 of several shapes: boxes of all sizes on noise; the first is empty."""
    random = torch.Generator().manual_seed(0)
    made = [empty_image(*SHAPES[0])]
    for height, width in SHAPES[1:]:
        image = torch.randint(0, 60, (3, height, width), generator=random, dtype=torch.uint8)
        for _ in range(20):
            y, x = (int(torch.randint(0, side, (), generator=random)) for side in (height, width))
            h, w = (int(torch.randint(1, 2 + side // 2, (), generator=random)) for side in (height, width))
            image[:, y : y + h, x : x + w] = torch.randint(60, 256, (3, 1, 1), generator=random, dtype=torch.uint8)
        made.append(image)
    return made


def empty_image(height: int, width: int) -> Tensor:
    """Grey with a little noise: without it all anchors of a level have the same score, in no defined order."""
    random = torch.Generator().manual_seed(1)
    return torch.randint(120, 136, (3, height, width), generator=random, dtype=torch.uint8)


def verify_export(
    path: Path,
    reference: Detector,
    load: Callable[[Path], Detector],
    check: Sequence[Tensor] | None = None,
    precision: str = "fp32",
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Compare the export at ``path`` with the model; return the differences by name.

    Returns:
        "images", "outputs" (of the network, in standard deviations) and "correlation" (of the outputs).
        For fp32 "detections" (of the model), "pixels" and "score" (largest differences of a corner and of a score) and
        "at limits" (detections that only one of them has, because of rounding at a limit); for a complete file
        "grey levels" (of the network's input) too.
        For bf16 and int8 "boxes" (of the model) and "found again" (how many of them the export has too); see
        :func:`retinanet.exporting.box_recall.recall_counts`.

    Raises:
        WorkError: they do not agree; the message says in what.
    """
    say = on_progress or (lambda text: None)
    exported = load(path)
    chosen = [*check, empty_image(*check[0].shape[1:])] if check else made_images()
    differences: dict[str, float] = {"images": len(chosen)}
    complete = isinstance(exported, OnnxDetector)
    say(f"comparing with the model on {len(chosen)} images")
    if complete:
        differences |= _inside(path, reference, chosen, say)
    else:
        batches = [ImageBatch.stack([reference.prepare(image)]) for image in chosen]
        theirs, ours = ([detector.forward(batch) for batch in batches] for detector in (exported, reference))
        differences |= _compare_outputs(theirs, ours, precision)
    say("detections of the export")
    detections = exported.detect_each(chosen)  # in one call: images of one size make a batch
    expected = []
    for i, image in enumerate(chosen):
        say(f"detections of the model, image {i + 1} of {len(chosen)}")
        expected += reference.detect_each([image])
    if precision != "fp32":
        counts = [recall_counts(model_found, found) for model_found, found in zip(expected, detections, strict=True)]
        return differences | {"boxes": sum(n for n, _ in counts), "found again": sum(n for _, n in counts)}
    agreement = Agreement()
    for model_found, found in zip(expected, detections, strict=True):
        agreement.add(found, model_found, reference.settings.postprocessing)
    differences |= {"detections": agreement.detections, "pixels": agreement.pixels, "score": agreement.score}
    if differences.get("grey levels", 0.0) > 0.5:  # other pixels, which make other scores of a few detections
        agreement.limits, agreement.others = agreement.limits + agreement.others, 0
    _require(agreement, "the export", "the model")
    return differences | {"at limits": agreement.limits}


def _inside(path: Path, reference: Detector, chosen: Sequence[Tensor], say: Callable[[str], None]) -> dict[str, float]:
    """The parts of a complete ONNX file, each compared with ours."""
    run = open_inside(path)
    settings = reference.settings
    options = PredictOptions(threshold=0.0)
    rules = dataclasses.replace(settings.postprocessing, threshold=0.0, coarsest_threshold=None)
    std = torch.tensor(settings.preprocessing.std)[:, None, None]
    grey, model_outputs, file_outputs, agreement = 0.0, [], [], Agreement()
    for i, image in enumerate(chosen):
        say(f"inside the file, image {i + 1} of {len(chosen)}")
        network_input, outputs, detections = run(image)
        batch = ImageBatch.stack([reference.prepare(image)])
        expected = batch.normalized(settings.preprocessing)
        if network_input.shape != expected.shape:
            raise WorkError(
                f"the export resizes an image to {list(network_input.shape)}, the model to {list(expected.shape)}"
            )
        grey = max(grey, float(((network_input - expected).abs() * std * 255).max()))
        with torch.inference_mode():
            # The file's own input, so that a difference in resizing is not reported twice.
            model_outputs.append(reference.model(network_input))
        file_outputs.append(outputs)
        agreement.add(detections, reference.decode(outputs, batch, options)[0], rules)
    limit = GREY.get(settings.preprocessing.interpolation, 0.05)
    if not grey <= limit:
        raise WorkError(f"the export resizes images in another way: {grey:.3g} grey levels, where {limit} may be")
    _require(agreement, "post-processing in the export", "ours")
    return {"grey levels": grey} | _compare_outputs(file_outputs, model_outputs, "fp32")


def _compare_outputs(theirs: Sequence[Outputs], ours: Sequence[Outputs], precision: str) -> dict[str, float]:
    """Difference and correlation of logits and deltas over all images and levels, the worse of the two."""
    worst, correlation = 0.0, 1.0
    for kind in ("logits", "deltas"):
        there, here = (torch.cat([t.flatten() for o in side for t in getattr(o, kind)]) for side in (theirs, ours))
        if there.shape != here.shape or not there.isfinite().all():
            raise WorkError(f"the network's {kind} in the export are not of the model's shape, or not finite")
        # Rounding follows the values' size, not their spread: an untrained model's logits all lie near -4.6.
        spread = here.double().std(correction=0) + 1e-3 * here.abs().max()
        worst = max(worst, float((there - here).abs().max() / spread.clamp(min=1e-12)))
        correlation = min(correlation, float(torch.corrcoef(torch.stack((there, here)).double())[0, 1].nan_to_num(0.0)))
    if precision == "fp32" and not worst <= OUTPUTS:
        raise WorkError(
            f"the export's network differs from the model's by {worst:.2g} standard deviations of its outputs, where "
            f"{OUTPUTS:g} may be"
        )
    if not correlation >= LEAST_CORRELATION.get(precision, 0.0):
        raise WorkError(
            f"the {precision} network's outputs correlate with the model's by {correlation:.3f} only,"
            f" where {LEAST_CORRELATION[precision]} is the least"
        )
    return {"outputs": worst, "correlation": correlation}


def _require(agreement: Agreement, what: str, whose: str) -> None:
    if not agreement.good:
        raise WorkError(
            f"{what} disagrees with {whose}: of {agreement.detections} detections {agreement.others} have no match "
            f"within 0.5 pixels and 0.001 in score, and {agreement.limits} more differ at a limit"
        )
