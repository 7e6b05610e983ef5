"""The model card of a detector: README.md for the Hugging Face hub, written from the values in the checkpoint.

A value that is missing is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.checkpoints.native import Checkpoint, threshold
from retinanet.common.coco_numbers import METRICS
from retinanet.common.errors import RequestError
from retinanet.common.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.config.model_settings import ModelSettings

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of batch normalisation's statistics."""
SHOWN = 100
"""The most classes that the text lists; config.json has all."""
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_LICENSE = re.compile(r"^[a-z0-9][a-z0-9.+-]*$")
_DATASET = re.compile(r"^[\w.-]+/[\w.-]+$", re.ASCII)


def card_text(
    checkpoint: Checkpoint,
    repo: str,
    *,
    license: str | None = None,
    data: str | None = None,
    metrics: Mapping[str, float] | None = None,
    run: Mapping[str, Any] | None = None,
) -> str:
    """The model card: YAML front matter, then Markdown; from the settings, ``checkpoint.extra`` and the arguments.

    Args:
        repo: "user/name" on the hub.
        license: its identifier there, such as "apache-2.0"; by default that of the checkpoint's origin.
        data: the name of the data set, or its id on the hub ("user/name"); by default the name of a run's data folder.
        metrics: values by the names in :data:`METRICS`; by default those stored with the weights.
        run: "run" and "evaluation", the JSON of these files of a run folder. The evaluation is used where it belongs
            to the step at which the weights were stored.

    Raises:
        RequestError: the license is no identifier; a metric is unknown or not in 0..1.
    """
    import jinja2

    about, run = checkpoint.extra, run or {}
    license = license or _text(about.get("license"))
    if license and not _LICENSE.match(license):
        raise RequestError(f"the license {license!r} is not an identifier such as apache-2.0, mit or cc-by-4.0")
    given = about.get("metrics") if metrics is None else metrics
    numbers = _numbers(given if isinstance(given, Mapping) else {}, strict=metrics is not None)
    stored = metrics is None  # given numbers do not belong to the stored split, step and images
    evaluation = run.get("evaluation", {}) if stored and numbers else {}
    if not isinstance(evaluation, Mapping) or evaluation.get("step", -1) != about.get("step"):
        evaluation = {}
    split = _text(about.get("split")) if stored else None
    name = data or _folder_name(run.get("run"))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cell
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=repo.partition("/")[2],
        repo=repo,
        version=__version__,
        classes=checkpoint.class_names,
        shown=SHOWN,
        rows=[(key, words, f"{numbers[key]:.3f}") for key, words in METRICS.items() if key in numbers],
        per_class=_per_class(evaluation.get("per_class")),
        images=evaluation.get("images"),
        split=split,
        step=about.get("step"),
        data=name,
        threshold=threshold(checkpoint.extra),
        settings=described(checkpoint.settings),
        parameters=_parameters(checkpoint.state),
        origin=_text(about.get("origin")),
        license=license,
    )
    matter = _front_matter(repo, license, name, numbers, split, checkpoint.settings.backbone.name)
    return f"---\n{matter}---\n\n{text.strip()}\n"


def _parameters(state: Mapping[str, Tensor]) -> int:
    """The number of trained values, without the statistics of batch normalisation."""
    return sum(t.numel() for name, t in state.items() if not name.endswith(STATISTICS))


def described(settings: ModelSettings) -> list[tuple[str, str]]:
    """The settings that matter to a reader, in words."""
    images, anchors, after = settings.preprocessing, settings.anchors, settings.postprocessing
    size = {
        "shorter": f"shorter side {images.size}, longer at most {images.longer} pixels",
        "none": "images are not resized",
    }.get(images.resize, f"{images.size} pixels ({images.resize})")
    levels = f"P{anchors.first_level} to P{anchors.first_level + len(anchors.sizes) - 1}"
    numbers = [
        ", ".join(f"{value:.3g}" for value in values) for values in (anchors.sizes, anchors.scales, anchors.ratios)
    ]
    return [
        ("backbone", f"{settings.backbone.name} (timm)"),
        ("pyramid", f"{levels}, {settings.pyramid.channels} channels"),
        ("subnets", f"depth {settings.head.depth}, {settings.head.width} channels, norm {settings.head.norm}"),
        ("anchors", f"sizes {numbers[0]} pixels, times {numbers[1]}; height to width {numbers[2]}"),
        ("image size", size),
        ("detections", f"at most {after.max_detections} an image, score above {after.threshold:.3g}, "
         f"NMS at IoU {after.nms_iou:.3g}{' over all classes' if after.nms == 'agnostic' else ''}"),
    ]  # fmt: skip


def cell(value: object) -> str:
    """Any text escaped for a cell of a Markdown table or a line, so that nothing in it is markup."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~!$&])", r"\\\1", text)


def _front_matter(
    repo: str, license: str | None, data: str | None, numbers: Mapping[str, float], split: str | None, backbone: str
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if numbers:
        # The hub requires a name and an id, and accepts any word as an id.
        ident = data if data and _DATASET.match(data) else re.sub(r"[^a-z0-9]+", "-", (data or "").lower()).strip("-")
        what = {"dataset_name": data or "not named", "dataset_type": ident or "not-named", "dataset_split": split}
        results = [
            EvalResult("object-detection", metric_type=key, metric_value=value, metric_name=METRICS[key], **what)  # type: ignore[arg-type]
            for key, value in numbers.items()
        ]
    matter = ModelCardData(
        library_name="retinanet",
        pipeline_tag="object-detection",
        tags=["retinanet", "object-detection", "focal-loss", backbone.split(".")[0]],
        license=license,
        datasets=[data] if data and _DATASET.match(data) else None,
        model_name=repo.partition("/")[2] if results else None,
        eval_results=results or None,
    )
    return str(matter.to_yaml(line_break="\n")).rstrip("\n") + "\n"


def _numbers(given: Mapping[str, Any], strict: bool) -> dict[str, float]:
    """The known ones of COCO's twelve numbers; -1 stands for a number without any ground truth.

    Args:
        strict: refuse unknown names and values, as for numbers that a user gave.
    """
    for name, value in given.items():
        if strict and (name not in METRICS or not isinstance(value, int | float) or not value <= 1):
            raise RequestError(f"a metric {name} of {value!r} is not one of {', '.join(METRICS)}, in 0..1")
    return {
        name: float(value)
        for name in METRICS
        if isinstance(value := given.get(name), int | float) and math.isfinite(value) and 0 <= value <= 1
    }


def _per_class(rows: Any) -> list[tuple[str, str, str, str]]:
    if not isinstance(rows, list):
        return []
    ranked = [row for row in rows if isinstance(row, Mapping) and {"name", "AP", "AP50", "boxes"} <= row.keys()]

    def text(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, int | float) and 0 <= value <= 1 else "–"

    return [(str(row["name"]), text(row["AP"]), text(row["AP50"]), str(row["boxes"])) for row in ranked]


def _folder_name(run: Any) -> str | None:
    """The name of a run's data folder, without its path on this machine."""
    path = run.get("data") if isinstance(run, Mapping) else None
    return Path(path).name or None if isinstance(path, str) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
