"""An exported file beside the model that it was made from, on images.

Detections alone would not do: an untrained model finds nothing, and nothing agrees with anything. So three things are
compared:

- the network's outputs, against how much they vary;
- in a file that does everything, what it makes of images, and of the network's outputs: with all thresholds at 0, so
  that there are detections whatever the model has learnt, against our own post-processing of the very same outputs;
- the detections of the file, as it is, with those of the model: same number and labels, boxes to 0.5 pixels, scores to
  0.001. Where a score or an overlap is right at a limit, the last digits decide; few such differences may be.

A network in bf16 or int8 has other outputs. What is required there is that they follow the model's; how many of its
boxes are found again is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import WorkError
from retinanet.export.box_recall import found_again
from retinanet.export.detector_agreement import Agreement
from retinanet.inference.detector import Detector
from retinanet.model.retinanet import Outputs
from retinanet.ops.image_batch import ImageBatch

OUTPUTS = 1e-3
"""How far the network's outputs may be off, in standard deviations of the outputs."""
FOLLOWS = {"bf16": 0.99, "int8": 0.9}
"""How much the outputs of a coarser network have to correlate with the model's: 0 is noise, 1 the same."""
GREY = {"antialias": 1.01, "pillow": 1.01}
"""How many of 255 grey levels a resized image may be off, 0.05 where nothing is said. Which axis Pillow resizes first
depends on its version and on the image, and the other order rounds some pixels to the next level; so does float32,
where images shrink to less than a quarter."""
SHAPES = ((480, 640), (480, 640), (427, 300), (60, 400), (20, 30))


def images() -> list[Tensor]:
    """Made ones of several shapes, (3, H, W) uint8: boxes of all sizes on noise; the first holds nothing."""
    random = torch.Generator().manual_seed(0)
    made = [nothing(*SHAPES[0])]
    for height, width in SHAPES[1:]:
        image = torch.randint(0, 60, (3, height, width), generator=random, dtype=torch.uint8)
        for _ in range(20):
            y, x = (int(torch.randint(0, side, (), generator=random)) for side in (height, width))
            h, w = (int(torch.randint(1, 2 + side // 2, (), generator=random)) for side in (height, width))
            image[:, y : y + h, x : x + w] = torch.randint(60, 256, (3, 1, 1), generator=random, dtype=torch.uint8)
        made.append(image)
    return made


def nothing(height: int, width: int) -> Tensor:
    """Grey and a little noise: without any, all places had one score, and which come first would be chance."""
    random = torch.Generator().manual_seed(1)
    return torch.randint(120, 136, (3, height, width), generator=random, dtype=torch.uint8)


def verify(
    place: Path,
    reference: Detector,
    load: Callable[[Path], Detector],
    check: Sequence[Tensor] | None = None,
    precision: str = "fp32",
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Run the export in ``place`` and compare.

    Returns:
        "images", "outputs" (of the network, in standard deviations) and "correlation" (of the outputs).
        Of fp32 "detections" (of the model), "pixels" and "score" (largest differences of a box's corner and of a
        score) and "at limits" (detections that one has and the other has not, for a reason); of a complete file
        "grey levels" (of the network's input) too.
        Of bf16 and int8 "boxes" (of the model, with a score that counts) and "found again" (so many of them); see
        :func:`retinanet.export.box_recall.found_again`.

    Raises:
        WorkError: they do not agree; the message says in what.
    """
    from retinanet.export.onnx.onnx_runtime import OnnxDetector

    say = on_progress or (lambda text: None)
    exported = load(place)
    chosen = [*check, nothing(*check[0].shape[1:])] if check else images()
    differences: dict[str, float] = {"images": len(chosen)}
    complete = isinstance(exported, OnnxDetector)
    say(f"comparing with the model on {len(chosen)} images")
    if complete:
        differences |= _inside(place, reference, chosen, say)
    else:
        batches = [ImageBatch.stack([reference.prepare(image)]) for image in chosen]
        theirs, ours = ([detector.forward(batch) for batch in batches] for detector in (exported, reference))
        differences |= _outputs(theirs, ours, precision)
    say("detections of the export")
    detections = exported.predict(list(chosen))  # in one call: images of one size make a batch
    expected = []
    for i, image in enumerate(chosen):
        say(f"detections of the model, image {i + 1} of {len(chosen)}")
        expected.append(reference.predict(image))
    if precision != "fp32":
        counts = [found_again(mine, found) for mine, found in zip(expected, detections, strict=True)]
        return differences | {"boxes": sum(n for n, _ in counts), "found again": sum(n for _, n in counts)}
    together = Agreement()
    for mine, found in zip(expected, detections, strict=True):
        together.add(found, mine, reference.settings.postprocessing)
    differences |= {"detections": together.detections, "pixels": together.pixels, "score": together.score}
    if differences.get("grey levels", 0.0) > 0.5:  # other pixels, which make other scores of a few detections
        together.limits, together.others = together.limits + together.others, 0
    _require(together, "the export", "the model")
    return differences | {"at limits": together.limits}


def _inside(place: Path, reference: Detector, chosen: Sequence[Tensor], say: Callable[[str], None]) -> dict[str, float]:
    """The parts of a complete ONNX file, each compared with ours."""
    from retinanet.export.onnx.onnx_runtime import open_inside

    run = open_inside(place)
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
    return {"grey levels": grey} | _outputs(file_outputs, model_outputs, "fp32")


def _outputs(theirs: Sequence[Outputs], mine: Sequence[Outputs], precision: str) -> dict[str, float]:
    """How far logits and deltas are from the model's over all images and levels, the worse of the two counting."""
    worst, follows = 0.0, 1.0
    for kind in ("logits", "deltas"):
        there, here = (torch.cat([t.flatten() for o in side for t in getattr(o, kind)]) for side in (theirs, mine))
        if there.shape != here.shape or not there.isfinite().all():
            raise WorkError(f"the network's {kind} in the export are not of the model's shape, or not finite")
        # Rounding follows the values' size, not their spread: an untrained model's logits all lie near -4.6.
        spread = here.double().std(correction=0) + 1e-3 * here.abs().max()
        worst = max(worst, float((there - here).abs().max() / spread.clamp(min=1e-12)))
        follows = min(follows, float(torch.corrcoef(torch.stack((there, here)).double())[0, 1].nan_to_num(0.0)))
    if precision == "fp32" and not worst <= OUTPUTS:
        raise WorkError(
            f"the export's network differs from the model's by {worst:.2g} standard deviations of its outputs, where "
            f"{OUTPUTS:g} may be"
        )
    if not follows >= FOLLOWS.get(precision, 0.0):
        raise WorkError(
            f"the {precision} network does not follow the model's any more: their outputs correlate with {follows:.3f},"
            f" where {FOLLOWS[precision]} is the least"
        )
    return {"outputs": worst, "correlation": follows}


def _require(together: Agreement, what: str, whose: str) -> None:
    if not together.good:
        raise WorkError(
            f"{what} disagrees with {whose}: of {together.detections} detections {together.others} have no match "
            f"within 0.5 pixels and 0.001 in score, and {together.limits} more are off at a limit"
        )
