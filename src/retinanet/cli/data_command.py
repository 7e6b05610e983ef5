"""retinanet data"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from cyclopts import Parameter

from retinanet.cli.options import Common, given, limit_pixels, output_of
from retinanet.cli.shared_options import MORE, Data, MaxPixels
from retinanet.common.arguments import require_data
from retinanet.common.atomic_files import require_new
from retinanet.common.errors import RequestError, WorkError
from retinanet.common.printable import NAME, printable, setting_text
from retinanet.config import recipes
from retinanet.config.convert import dotted
from retinanet.config.model_settings import AnchorSettings, ModelSettings
from retinanet.config.settings import MatchingSettings
from retinanet.terminal.console import Output
from retinanet.terminal.data_lines import fault_lines, split_lines
from retinanet.terminal.progress import Progress

if TYPE_CHECKING:
    from retinanet.analysis.anchor_fit import Choice
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.doctor import Finding
    from retinanet.analysis.survey import SplitSurvey
    from retinanet.data import DetectionData

    GivenSettings = dict[str, Any]
else:

    class GivenSettings(TypedDict, total=False):
        model: Annotated[given(ModelSettings, "model"), Parameter(name="model")]
        matching: Annotated[given(MatchingSettings, "matching"), Parameter(name="matching")]


INSPECTED = 5000  # images of a split that are inspected by default: takes from some seconds to half a minute
EXAMPLES = 3  # of each finding on the terminal; the JSON and the page have more
CLASSES = 20  # on the terminal, the most frequent first
ENOUGH = 0.95  # classes with a lower coverage are named
Format = Literal["coco", "yolo", "voc"]


def data(
    data: Data,
    /,
    *,
    report: Path | None = None,
    convert: Annotated[tuple[Format, Path] | None, Parameter(metavar="coco|voc|yolo FOLDER", negative=())] = None,
    split: float | None = None,
    strict: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    config: Annotated[str | None, Parameter(metavar="RECIPE")] = None,
    anchors: Annotated[Literal["auto", "settings"] | None, Parameter(group=MORE)] = None,
    images: Annotated[int, Parameter(group=MORE)] = INSPECTED,
    max_pixels: MaxPixels = None,
    seed: Annotated[int, Parameter(group=MORE)] = 0,
    settings: Annotated[GivenSettings | None, Parameter(name="*")] = None,
    common: Common | None = None,
) -> None:
    """Check labelled images before training: figures, faults, and the boxes that RetinaNet's anchors cover.

    Examples
    --------
    retinanet data DATA --report data.html
    retinanet data DATA --convert coco NEW --split 0.8

    Parameters
    ----------
    config
        Check for the image size and anchors of this recipe. [default: those that retinanet train DATA would choose]
    anchors
        "auto" fits the anchors to the boxes; "settings" takes those of the settings. [default: auto without a recipe]
    report
        Also write a page (.html) with charts and sample images; it needs no network.
    images
        Inspect at most this many images of each split for copies, wrong channels and blank images; 0 inspects none.
        With --split all are inspected, so that near-duplicates stay in one split; 0 splits images one by one.
    strict
        Exit with 1 if there are errors or warnings.
    convert
        Copy the data set: a layout (coco, yolo, voc) and a new folder.
    split
        With --convert, split a data set that has one split only: this share of the images for train (such as 0.8), the
        rest for val, with classes in proportion.
    seed
        Seed for --split.
    """
    out = output_of(common)
    require_data(data)
    if images < 0:
        raise RequestError(f"--images must be 0 or more, not {images}")
    limit_pixels(max_pixels)
    if report is not None and (report.suffix.lower() not in (".html", ".htm") or not report.absolute().parent.is_dir()):
        raise RequestError(f"--report {report}: give a file name that ends in .html, in a folder that exists")
    if split is not None and convert is None:
        raise RequestError("--split needs a copy of the data set: add --convert coco|yolo|voc OUT")
    if convert is not None:
        _convert(out, data, convert, split, seed, keep_groups=images > 0)
        return
    _check(out, data, config, anchors, report, images, strict, settings or {})


def _check(
    out: Output,
    root: Path,
    config: str | None,
    anchors: str | None,
    report: Path | None,
    images: int,
    strict: bool,
    given_settings: Mapping[str, Any],
) -> None:
    settings = recipes.load(config or recipes.FITTED, given_settings)  # errors in the settings come first

    from retinanet.analysis.anchor_fit import fit_model, lost_boxes
    from retinanet.analysis.doctor import examine, open_all
    from retinanet.analysis.doctor.finding import rank
    from retinanet.analysis.near_duplicates import inspect_images
    from retinanet.analysis.survey import survey
    from retinanet.common.devices import fastest_device

    with Progress(out) as progress:

        def checking(name: str, done: int, total: int) -> None:
            progress.counter(f"checking {name}")(done, total)

        splits, unusable = open_all(root, on_progress=checking)
        if not splits:
            raise RequestError(f"{root}: no split can be used; {unusable[0].split}: {unusable[0].text}")
        first = next(iter(splits.values()))
        choices: list[Choice] = []
        if config is None or anchors == "auto":
            fixed = [*dotted(given_settings), *(() if config is None else ("model.preprocessing.size",))]
            device = fastest_device().type
            settings, choices = fit_model(first, settings, fixed, device, anchors != "settings")
        model, matching = settings.model, settings.matching
        figures = {
            name: inspect_images(each, on_progress=progress.counter(f"inspecting {name}"), limit=images)
            for name, each in (splits.items() if images else ())
        }
        findings = rank([*unusable, *examine(splits, model, figures)])
        surveys = {name: survey(each, model.preprocessing) for name, each in splits.items()}
        coverages = _coverages(first, model, matching)
        lost = lost_boxes(first, model, matching)[1]
    out.say(f"{root} ({first.kind})", "")
    _say_surveys(out, surveys)
    _say_findings(out, findings)
    if skipped := sum(each.total - len(each.indices) for each in figures.values()):
        out.say(f"{skipped} images were not inspected for copies, wrong channels and blank images: --images 1000000")
    _say_coverage(out, surveys[first.split], coverages, choices, lost)
    if report is not None:
        from retinanet.report.data_page import DataFacts, write_data_page

        facts = DataFacts(
            root=root,
            kind=first.kind,
            surveys=surveys,
            findings=findings,
            coverages=coverages,
            choices=[choice.plain() for choice in choices],
            splits=splits,
            model=model,
        )
        write_data_page(report, facts)
        out.say("", f"report: {report}")
    out.json(
        {
            "data": root,
            "kind": first.kind,
            "splits": {name: each.plain() for name, each in surveys.items()},
            "findings": [vars(finding) for finding in findings],
            "coverage": {name: each.plain() for name, each in coverages.items()},
            "choices": [choice.plain() for choice in choices],
        }
    )
    errors, warnings = (sum(finding.severity == kind for finding in findings) for kind in ("error", "warning"))
    if strict and errors + warnings:
        raise WorkError(f"{root} has {errors} kinds of errors and {warnings} kinds of warnings; --strict allows none")


def _coverages(data: DetectionData, model: ModelSettings, matching: MatchingSettings) -> dict[str, Coverage]:
    """The coverage of the anchors, and of the paper's anchors if these are others."""
    from retinanet.analysis.coverage import cover

    coverages = {"the anchors here": cover(data, model, matching)}
    if model.anchors == AnchorSettings():
        return coverages
    return {"the paper's anchors": cover(data, replace(model, anchors=AnchorSettings()), matching)} | coverages


def _splits(surveys: Mapping[str, SplitSurvey]) -> Any:
    """A row for each split."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    columns = ("split", "images", "size", "boxes", "crowds", "empty", "mean", "most", "sides", "trained")
    for column in columns:
        table.add_column(column, justify="left" if column == "split" else "right", no_wrap=True)
    for name, split in surveys.items():
        height, width = split.image_median
        stored, trained = (f"{s.size.p5:.0f} {s.size.p50:.0f} {s.size.p95:.0f}" for s in (split.stored, split.trained))
        counts = (split.boxes, split.crowds, split.empties)
        table.add_row(
            *(printable(name, NAME), str(split.images), f"{width}x{height}", *map(str, counts)),
            *(f"{split.objects_mean:.1f}", str(split.objects_max), stored, trained),
        )
    return table


def _classes(surveys: Mapping[str, SplitSurvey]) -> Any:
    """A row for each class."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("boxes of")
    for name in surveys:
        table.add_column(printable(name, NAME), justify="right")
    table.add_column("median side", justify="right")
    first = next(iter(surveys.values()))
    order = sorted(range(len(first.classes)), key=lambda i: -first.classes[i].boxes)
    for i in order[:CLASSES]:
        in_first = first.classes[i]
        counts = [str(split.classes[i].boxes) for split in surveys.values()]
        table.add_row(printable(in_first.name, NAME), *counts, f"{in_first.size:.0f} px" if in_first.boxes else "")
    if len(order) > CLASSES:
        table.caption = f"and {len(order) - CLASSES} rarer classes"
        table.caption_justify = "left"
    return table


def _say_surveys(out: Output, surveys: Mapping[str, SplitSurvey]) -> None:
    out.console.print(_splits(surveys))
    out.say(
        "(empty: images without a box; mean, most: boxes in an image; sides: square root of a box's area in px, 5 %, "
        "median, 95 %, in the files and as trained)",
        "",
    )
    out.console.print(_classes(surveys))


def _say_findings(out: Output, findings: Sequence[Finding]) -> None:
    out.say("")
    if not findings:
        out.say("no problems found")
    for finding in findings:
        where = f" ({finding.split})" if finding.split else ""
        out.say(f"{finding.severity}: {finding.code}{where}: {finding.text}")
        out.say(*(f"    {example}" for example in finding.examples[:EXAMPLES]))
        if finding.count > EXAMPLES < len(finding.examples):
            out.say("    …")
        if finding.severity != "note":
            out.say(f"  do: {finding.remedy}")


def _say_coverage(
    out: Output, split: SplitSurvey, coverages: Mapping[str, Coverage], choices: Sequence[Choice], lost: str | None
) -> None:
    from retinanet.analysis.coverage import share_text

    height, width = split.trained_median
    out.say("", f"What RetinaNet will see of {split.split}, in images of {width} x {height}:")
    out.say(*(f"  {choice.setting} {setting_text(choice.value)}: {choice.reason}" for choice in choices))
    for name, each in coverages.items():
        ratio = f", {each.ratio:.0f} background anchors for each" if each.positives else ""
        out.say(
            f"  {name} cover {share_text(each.share)} of the boxes: {each.positives:.1f} positive anchors an image"
            + ratio
            + (f"; {share_text(each.without)} of the images with boxes have none" if each.without else "")
        )
    here = coverages["the anchors here"]
    poor = [row for row in here.per_class if row[1] and row[2] < ENOUGH]
    for what, rows in (("size", [row for row in here.per_size if row[1]]), ("class", poor[:CLASSES])):
        if rows:
            shares = (f"{name} {share_text(share, 0)} of {count}" for name, count, share in rows)
            out.say(f"  by {what}: " + ", ".join(shares))
    if lost:
        out.say(f"warning: {lost}")


def _convert(
    out: Output, root: Path, convert: tuple[Format, Path], fraction: float | None, seed: int, keep_groups: bool
) -> None:
    from retinanet.data import open_data
    from retinanet.data.formats.writers import write
    from retinanet.data.layouts import find_layout

    layout, folder = convert
    require_new(folder, "")  # before the slow work
    names = list(find_layout(root).counts)
    if fraction is not None and len(names) > 1:
        raise RequestError(f"{root} has the splits {', '.join(names)} already: leave --split out to copy them")
    with Progress(out) as progress:
        opened = {name: open_data(root, name, on_progress=progress.counter("checking")) for name in names}
        splits: dict[str, Any] = dict(opened)
        for each in opened.values():
            out.note(*split_lines(each), *(f"  {line}" for line in each.label_map_lines()), *fault_lines(each))
        if fraction is not None:
            (data,) = opened.values()
            splits = _split(out, progress, data, fraction, seed, keep_groups)
        written = write(folder, layout, splits, on_progress=progress.counter("copying"))
    for name, images in written.images.items():
        out.say(f"{name}: {images} images, {written.boxes[name]} boxes")
    out.say(*written.lines(), f"the data set is in {folder}: retinanet train {folder}")
    out.json({"data": root, "layout": layout, **vars(written)})


def _split(
    out: Output, progress: Progress, data: DetectionData, fraction: float, seed: int, keep_groups: bool
) -> dict[str, Any]:
    """The data in train and val; with ``keep_groups`` near-duplicates are in the same one."""
    import numpy as np

    from retinanet.analysis.near_duplicates import inspect_images
    from retinanet.analysis.splitting import duplicate_groups, one_sided, split

    groups = None
    if keep_groups and len(data) > 1:
        groups = duplicate_groups(inspect_images(data, on_progress=progress.counter("comparing")))
        sizes = np.unique(groups, return_counts=True)[1]
        if len(sizes) == 1:
            raise RequestError(
                f"all {len(data)} images of {data.root} are near-duplicates, as frames of one video: val would not "
                "test what is new; --images 0 splits them one by one all the same"
            )
        if (sizes > 1).any():
            out.say(
                f"{sizes[sizes > 1].sum()} images are near-duplicates, in {(sizes > 1).sum()} groups that stay together"
            )
    train, val = split(data, fraction, seed, groups)
    alone = one_sided(data, train, val)
    if alone:
        out.note(f"  all images with {', '.join(alone)} are in one split")
    return {"train": (data, train), "val": (data, val)}
