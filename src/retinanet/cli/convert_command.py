"""retinanet convert"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.cli.model_argument import require_model
from retinanet.cli.options import Common, given, output_of
from retinanet.common.errors import RequestError
from retinanet.common.printable import listed
from retinanet.common.text import TextError, lines, read_text
from retinanet.config.convert import to_plain
from retinanet.config.model_settings import ModelSettings

if TYPE_CHECKING:
    from retinanet.checkpoints import Checkpoint

    GivenSettings = dict[str, Any]


@dataclass(frozen=True)
class ConvertSettings:
    """Settings that override those of a checkpoint."""

    model: ModelSettings = field(default_factory=ModelSettings)


if not TYPE_CHECKING:
    GivenSettings = given(ConvertSettings, defaults=False)


def convert(
    checkpoint: str,
    file: Path,
    /,
    *,
    classes: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative=())] = None,
    settings: Annotated[GivenSettings | None, Parameter(name="*")] = None,
    common: Common | None = None,
) -> None:
    """Convert another project's checkpoint into ours, with the conventions that its boxes depend on.

    Every command takes such checkpoints as they are, too. A converted one is a single file that names its classes and
    loads faster.

    Examples
    --------
    retinanet convert model_final_bfca0b.pkl r50.safetensors
    retinanet convert fine-tuned.pth mine.safetensors --classes cat dog

    Parameters
    ----------
    checkpoint
        A file of torchvision, Detectron2, MMDetection, Detectron or DeepForest (recognised by its tensors), an https
        URL, user/name on the Hugging Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's weights.
    file
        The new file to write; its name ends in .safetensors.
    classes
        Names of the classes in the order of the labels, or a text file with one in each line. A model fine-tuned with
        torchvision has one output more than classes; give the names without the background. [default: those in the
        checkpoint, or COCO's if the number of classes is the same]
    """
    out = output_of(common)
    require_model(checkpoint, weights=True)
    if file.suffix != ".safetensors":
        raise RequestError(f"{file} must be a safetensors file: give it a name that ends in .safetensors")
    if file.exists():
        raise RequestError(f"{file} exists: name a new file, or remove it first")
    if not file.absolute().parent.is_dir():
        raise RequestError(f"there is no folder {file.absolute().parent} to write {file.name} into")

    from retinanet import checkpoints
    from retinanet.checkpoints.built_network import build
    from retinanet.checkpoints.class_names import with_names

    loaded = checkpoints.load(checkpoint, (settings or {}).get("model"))
    if classes is not None:
        loaded = with_names(loaded, _names(classes, len(loaded.class_names)))
    names = loaded.class_names
    model = build(loaded, checkpoint)
    checkpoints.native.save(file, model.state_dict(), model.settings, names, loaded.extra)

    origin = checkpoints.origin(loaded.extra)
    precision = "auto" if origin is None else 'fp32, so that its boxes are those of its project; "auto" is faster'
    out.say(f"{checkpoint}: {origin or 'our own format'}")
    out.say(*(f"  {line}" for line in conventions(loaded._replace(settings=model.settings))))
    out.say(f"  precision by default: {precision}")
    out.say(f"  {len(names)} classes: {listed(names, 8)}")
    out.note(*(f"  assumed: {line}" for line in loaded.extra.get("assumed", ())))
    out.say(f"written: {file}, {file.stat().st_size / 1e6:.0f} MB", f"next: retinanet predict {file} IMAGE...")
    out.json(
        {
            "checkpoint": checkpoint,
            "file": file,
            "origin": origin or "our own format",
            "precision": "auto" if origin is None else "fp32",
            "classes": names,
            "settings": to_plain(model.settings),
            "assumed": loaded.extra.get("assumed", []),
        }
    )


def conventions(checkpoint: Checkpoint) -> list[str]:
    """The conventions of a model for images, anchors and boxes, in words."""
    model = checkpoint.settings
    images, after, anchors = model.preprocessing, model.postprocessing, model.anchors
    size = {
        "shorter": f"shorter side {images.size}, longer at most {images.longer}",
        "square": f"longer side {images.size}, in a square",
        "none": "as large as they are",
    }[images.resize]
    how = {
        "antialias": "bilinear, antialiased",
        "pillow": "Pillow's bilinear",
        "plain": "bilinear, not antialiased",
        "opencv": "OpenCV's bilinear",
    }
    strides = "strides from the padded size" if anchors.strides == "torchvision" else "fixed strides"
    rounded = "" if anchors.rounding == "none" else f", rounded as by {anchors.rounding}"
    return [
        f"images: {size}, {how[images.interpolation]}, padded to a multiple of {images.multiple}, "
        f"{images.channels.upper()}",
        f"network: {model.backbone.name}"
        + (" with strides in the 1 x 1 convolutions" if model.backbone.stride_in_1x1 else "")
        + f", P6 from {model.pyramid.p6_from.upper()}"
        + ("" if model.pyramid.p7_relu else ", P7 without ReLU"),
        f"anchors: {anchors.per_position} a position, {strides}, first centre at {anchors.offset:g} of one{rounded}",
        f"boxes: scores above {after.threshold:g}, {after.candidates} candidates a level, NMS at {after.nms_iou:g}"
        f"{' over all classes' if after.nms == 'agnostic' else ''}, "
        f"at most {after.max_detections}, clipped {after.clip} NMS",
    ]


def _names(given: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The class names that ``--classes`` gives, as a list or in a file.

    Raises:
        RequestError: the file cannot be read.
    """
    if len(given) > 1 or (count == 1 and not Path(given[0]).is_file()):
        return given
    try:
        text = read_text(given[0])
    except TextError as error:
        raise RequestError(f"--classes {given[0]} cannot be read as a text file of names: {error.reason}") from error
    return tuple(line.strip() for line in lines(text) if line.strip())
