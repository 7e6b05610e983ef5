"""retinanet predict"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, output_of
from retinanet.cli.shared_options import MORE, BatchSize, Device, MaxPixels, Model, NmsOption, Precision, Trust
from retinanet.common.arguments import PredictOptions, whole
from retinanet.common.errors import RequestError
from retinanet.common.printable import listed
from retinanet.common.run_names import next_folder
from retinanet.terminal.console import Output, clock
from retinanet.terminal.progress import EVERY, Progress

if TYPE_CHECKING:
    from retinanet.predict.files import FilesResult
    from retinanet.predict.inputs import Sources
    from retinanet.predict.outputs import OutputOptions
    from retinanet.predict.predictor import Pace
    from retinanet.predict.video import VideoResult

SHOWN = 5  # unreadable images that are named on the terminal; the JSON names all

Format = Literal["json", "csv", "yolo"]


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options of retinanet predict that need no other package than this one to be described."""

    slices: int | None = None
    """For small objects in large images: detect in overlapping tiles of this many pixels of the image. [default: none,
    the whole image]"""
    overlap: Annotated[float, Parameter(group=MORE)] = 0.2
    """Fraction of a tile that its neighbours share. Objects smaller than it are whole in some tile."""
    whole: Annotated[bool, Parameter(group=MORE)] = True
    """With --slices: run on the whole image too, for objects larger than the overlap."""
    max_pixels: MaxPixels = None
    track: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """In videos: give each object a number that it keeps from frame to frame."""
    stride: Annotated[int, Parameter(group=MORE)] = 1
    """In videos: detect in every n-th frame."""
    overwrite: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Write into an output folder that has files already. Files of the same name are replaced; all others stay."""


def predict(
    model: Model,
    /,
    *sources: str,
    output: Path | None = None,
    threshold: float | None = None,
    max_detections: Annotated[int | None, Parameter(group=MORE)] = None,
    size: int | None = None,
    nms: NmsOption = None,
    formats: Annotated[
        tuple[Format, ...], Parameter(name="--format", consume_multiple=True, negative=(), show_default=" ".join)
    ] = ("json",),
    draw: bool = True,
    options: Options | None = None,
    batch_size: BatchSize = 8,
    device: Device = None,
    precision: Precision = None,
    trust: Trust = False,
    common: Common | None = None,
) -> None:
    """Detect objects in images and videos: draw them, and write result files.

    Examples
    --------
    retinanet predict runs/pets-1 holiday/ 'more/*.jpg' --format json csv
    retinanet predict runs/pets-1 street.mp4 --track

    Parameters
    ----------
    sources
        Images, videos, folders (with their subfolders), patterns, URLs of videos and streams, or camera:0. A video,
        stream or camera needs retinanet[video].
    output
        A new folder for drawn images, annotated videos and result files. [default: next free runs/predict-1]
    threshold
        Drop detections with a score at or below this. [default: the one of the best F1 in the model's evaluation, else
        0.3]
    max_detections
        Limit of detections in one image. [default: the model's own]
    size
        Resize images to this many pixels, mostly the shorter side. [default: the model's own]
    formats
        Result files: detections.json (COCO's format), detections.csv, or a YOLO label file for each image. A video
        always has NAME.jsonl, a line of JSON for each frame.
    draw
        Write the images and videos with their detections drawn.
    """
    out, options = output_of(common), options or Options()
    require_model(model)
    PredictOptions(threshold, max_detections, size, batch_size, nms, lambda name: "--" + name.replace("_", "-"))
    if not sources:
        raise RequestError("which images? retinanet predict MODEL SOURCE..., files, folders or patterns")
    for name in ("slices", "stride", "max_pixels"):
        if (value := getattr(options, name)) is not None:
            whole("--" + name.replace("_", "-"), value)

    from retinanet.predict.outputs import OutputOptions

    outputs = OutputOptions(draw, formats, options.overwrite)
    found = _find(sources, output, outputs, options)  # errors in these are reported before a model is loaded
    detector = load(model, device, precision, out, trust)
    run = {"threshold": threshold, "max_detections": max_detections, "size": size, "batch_size": batch_size, "nms": nms}
    folder = output or next_folder(Path("predict"))
    _run(out, model, detector, found, folder, run | {"outputs": outputs}, options)


def _find(sources: Sequence[str], output: Path | None, outputs: OutputOptions, options: Options) -> Sources:
    """The images and videos.

    Raises:
        RequestError: an option or a source cannot be used.
        WorkError: not one image can be read.
    """
    from retinanet.inference.tiling import shared_pixels
    from retinanet.predict.files import require_readable, require_video
    from retinanet.predict.inputs import find_sources

    if output is not None:
        outputs.require_folder(output)
    found = find_sources(sources, options.max_pixels)
    if output is not None:
        outputs.keep_sources(output, found)
    shared_pixels(options.slices or 1, options.overlap)
    require_readable(found)
    if found.videos:
        require_video(options.track)
    elif options.track or options.stride > 1:
        name = "--track" if options.track else "--stride"
        raise RequestError(f"{name} is for videos: there is none among the sources")
    return found


def _run(
    out: Output,
    model: str,
    detector: Any,
    found: Sources,
    folder: Path,
    run: dict[str, Any],
    options: Options,
) -> None:
    from retinanet.predict.files import predict_files, usual_threshold
    from retinanet.predict.predictor import Callbacks, Tiling
    from retinanet.predict.video import VideoOptions
    from retinanet.training.signals import Interrupt

    reason = ""
    if run["threshold"] is None:
        run["threshold"] = usual_threshold(detector)
        reason = "" if detector.threshold is None else " (the model's best F1)"
    problems = 0

    def problem(path: str, reason: str) -> None:
        nonlocal problems
        problems += 1
        if problems <= SHOWN:
            out.note(f"cannot read {path}: {reason}")

    with Progress(out) as progress, Interrupt(bool(found.videos)) as interrupt:
        result = predict_files(
            detector,
            found,
            folder,
            **run,
            tiling=None if options.slices is None else Tiling(options.slices, options.overlap, options.whole),
            videos=VideoOptions(options.track, options.stride),
            callbacks=Callbacks(
                stop=lambda: interrupt.requested,
                on_images=progress.counter("predicting"),
                on_tiles=progress.timed_counter("image", "tiles"),
                on_frames=_show_pace(out, progress),
                on_problem=problem,
            ),
        )
    _report(out, result, f"score above {run['threshold']:.3g}{reason}", run["outputs"].draw)
    out.json({"model": model, "precision": detector.precision, "threshold": run["threshold"]} | _as_json(result))
    if interrupt.requested and not (result.videos and result.videos[-1].live):
        raise KeyboardInterrupt("not all inputs were processed")


def _show_pace(out: Output, progress: Progress) -> Callable[[Pace], None]:
    """A callback that shows the progress in a video: a bar where its length is known, else a line now and then."""
    shown = time.monotonic()

    def show(pace: Pace) -> None:
        nonlocal shown
        name, rate = pace.video.shown, f"{pace.rate:.1f} a second"
        if pace.frames == pace.total:
            progress.counter(name, "frames")(pace.frames, pace.total)
        elif pace.total is not None:
            left = "" if pace.seconds_left is None else f", {clock(pace.seconds_left)} left"
            progress.count(name, min(pace.frames, pace.total), pace.total, f"frames, {rate}{left}")
        elif time.monotonic() - shown > EVERY:
            shown = time.monotonic()
            out.note(f"{name}: {pace.frames} frames, {rate}; Ctrl-C ends it")

    return show


def _report(out: Output, result: FilesResult, limit: str, draw: bool) -> None:
    frames = sum(video.frames for video in result.videos)
    inputs = [f"{result.images} images"] if result.images or not frames else []
    inputs += [f"{frames} frames"] if result.videos else []
    classes = ", ".join(f"{name} {count}" for name, count in result.detections.most_common())
    classes = f": {classes}" if classes else ""
    out.say(f"{result.detections.total()} detections in {' and '.join(inputs)}, {limit}{classes}")
    for video in result.videos:
        out.say(f"{video.source}: {'; '.join(_facts(video))}")
    if result.unreadable:
        out.say(f"{len(result.unreadable)} files could not be read")
    for path, reason in result.unwritten[:SHOWN]:
        out.say(f"{path}: {reason}")
    if result.unwritten:
        out.say(f"{len(result.unwritten)} images without one of their files, because of its name or size")
    for note, names in result.notes.items():
        out.say(f"{len(names)} images: {note}, {listed(names, SHOWN)}")
    for reason, count in Counter(reason for _, reason in result.skipped).most_common():
        names = [name for name, its_reason in result.skipped if its_reason == reason]
        out.say(f"{count} skipped ({reason}): {listed(names, SHOWN)}")
    files = ", ".join(str(file.relative_to(result.output)) for file in result.files)
    drawn = "the drawn images" if draw and result.images else ""
    out.say(f"in {result.output}: " + " and ".join(filter(None, [drawn, files])))


def _facts(video: VideoResult) -> list[str]:
    facts = [f"{video.frames} frames, {clock(video.seconds)}"]
    if video.objects is not None:
        facts.append(f"{video.objects} objects")
    if video.dropped:
        facts.append(f"{video.dropped} frames dropped, because they came faster than the network")
    if video.audio_dropped:
        facts.append("without its sound")
    if video.stopped:
        facts.append("stopped")
    if video.problem:
        facts.append(video.problem)
    return facts


def _as_json(result: FilesResult) -> dict[str, Any]:
    problems = {
        name: [{"file": file, "reason": reason} for file, reason in getattr(result, name)]
        for name in ("unreadable", "unwritten", "skipped")
    }
    return vars(result) | problems | {"videos": [vars(video) for video in result.videos]}
