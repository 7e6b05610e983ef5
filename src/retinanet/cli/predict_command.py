"""retinanet predict"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.console import Output, clock
from retinanet.cli.model_argument import Precision, load, require_model
from retinanet.cli.options import Common
from retinanet.cli.progress import EVERY, Progress
from retinanet.cli.train_command import next_folder
from retinanet.common.arguments import of_prediction
from retinanet.common.arguments import whole as whole_number
from retinanet.common.atomic_files import require_new
from retinanet.common.errors import RequestError
from retinanet.common.printable import listed

if TYPE_CHECKING:
    from retinanet.predict.files import Predicted
    from retinanet.predict.video import Pace, VideoMade

SHOWN = 5  # unreadable images that are named on the terminal; all of them are in the JSON

Format = Literal["json", "csv", "yolo"]


def predict(
    model: str,
    /,
    *sources: str,
    output: Path | None = None,
    threshold: float | None = None,
    max_detections: int | None = None,
    size: int | None = None,
    formats: Annotated[tuple[Format, ...], Parameter(name="--format", consume_multiple=True, negative=())] = ("json",),
    draw: bool = True,
    slices: int | None = None,
    overlap: float = 0.2,
    whole: bool = True,
    max_pixels: int | None = None,
    track: Annotated[bool, Parameter(negative=())] = False,
    stride: int = 1,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision = None,
    trust: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    common: Common | None = None,
) -> None:
    """Find objects in images and videos: draws them and writes what was found.

    Example: retinanet predict runs/mine holiday/ 'more/*.jpg' --output found --format json csv

    Example: retinanet predict runs/mine street.mp4 --track

    Parameters
    ----------
    model
        A run folder (its best checkpoint), a checkpoint file of this or another project, an https address, user/name
        on the Hugging Face hub, or retinanet_resnet50_fpn(_v2) for torchvision's.
    sources
        Images, videos, folders (with their subfolders) and patterns; camera:0 or 0 for a camera; the address of a
        video or stream (http, https, rtsp, ...). Videos, cameras and streams need retinanet[video].
    output
        A new folder for drawn images, annotated videos and result files; by default the next free runs/predict-1,
        ...
    threshold
        Drop detections with a score at or below it; by default the one with the best F1 when the model was measured in
        training, and 0.3 for a model that was not.
    max_detections
        The most in one image; by default the model's own setting.
    size
        Resize images to this many pixels (as the model does: the shorter side in general) instead of the model's
        size.
    formats
        Of images. json: detections.json in COCO's form; csv: detections.csv; yolo: labels/, a text file an image.
        A video has NAME.jsonl always, a line of JSON a frame.
    draw
        Write the images and videos with their detections drawn.
    slices
        For small objects in large images: look at overlapping tiles of this many pixels of the image.
    overlap
        The part of a tile that its neighbours see too; objects smaller than it are whole in some tile.
    whole
        With --slices: look once at the whole image too, for objects larger than the overlap.
    max_pixels
        Refuse images of more pixels; by default RETINANET_MAX_PIXELS of the environment, else 178956970. Decoding takes
        some 7 bytes a pixel.
    track
        In videos: give each object a number that it keeps.
    stride
        In videos: look at every so many frames.
    batch_size
        Images that go through the network together.
    device
        cpu, cuda, cuda:1, ...; by default a GPU where there is one.
    precision
        "auto" computes in bf16 where the machine does so natively, else in fp32; by default "auto" for models trained
        here, and "fp32" for those of other projects, so that their boxes are the same as there.
    trust
        Load an exported PyTorch program (.pt2) too, which can run anything on this machine; other files need no trust.
    """
    out = Output(common)
    require_model(model)
    if not sources:
        raise RequestError("which images? retinanet predict MODEL SOURCE..., files, folders or patterns")
    of_prediction(threshold, max_detections, size, batch_size, "--{}")
    for name, value in {"--slices": slices, "--stride": stride, "--max-pixels": max_pixels}.items():
        if value is not None:
            whole_number(name, value)

    from retinanet.inference.tiling import shared_pixels
    from retinanet.predict.files import predict_files, require_readable, require_video, usual_threshold
    from retinanet.predict.inputs import find_sources
    from retinanet.training.signals import Interrupt

    # What is wrong with them is said before a model is loaded.
    if output is not None:
        require_new(output, "with --output")
    found = find_sources(sources)
    videos = found.videos
    shared_pixels(slices or 1, overlap)
    require_readable(found, max_pixels)
    if videos:
        require_video(track)
    elif track or stride > 1:
        raise RequestError(f"{'--track' if track else '--stride'} is for videos: there is none among the sources")
    detector = load(model, device, precision, out, trust)
    folder = output or next_folder(Path("predict"))
    why = "" if threshold is not None or detector.threshold is None else " (the model's best F1)"
    threshold = usual_threshold(detector) if threshold is None else threshold
    problems = 0

    def problem(path: str, reason: str) -> None:
        nonlocal problems
        problems += 1
        if problems <= SHOWN:
            out.note(f"cannot read {path}: {reason}")

    with Progress(out) as progress, Interrupt(bool(videos)) as interrupt:
        made = predict_files(
            detector,
            sources,
            folder,
            threshold=threshold,
            max_detections=max_detections,
            size=size,
            batch_size=batch_size,
            slices=slices,
            overlap=overlap,
            whole=whole,
            max_pixels=max_pixels,
            draw=draw,
            formats=formats,
            track=track,
            stride=stride,
            stop=lambda: interrupt.requested,
            on_progress=progress.counter("looking at"),
            on_frames=_pace(out, progress),
            on_tiles=progress.timed_counter("image", "tiles"),
            on_problem=problem,
        )
    _report(out, made, threshold, why, draw)
    out.json(
        {
            "model": model,
            "output": folder,
            "images": made.images,
            "threshold": threshold,
            "precision": detector.precision,
            "detections": dict(made.detections),
            "unreadable": [{"file": path, "reason": reason} for path, reason in made.unreadable],
            "unwritten": [{"file": path, "reason": reason} for path, reason in made.unwritten],
            "passed_over": [{"file": path, "reason": reason} for path, reason in made.passed_over],
            "notes": made.notes,
            "files": made.files,
            "videos": [_as_json(video) for video in made.videos],
        }
    )
    if interrupt.requested and not (made.videos and made.videos[-1].video.live):
        raise KeyboardInterrupt("not all was looked at")


def _pace(out: Output, progress: Progress) -> Callable[[Pace], None]:
    """A callback that shows how far a video is: as ever where its length is known, else a line now and then."""
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


def _report(out: Output, made: Predicted, threshold: float, why: str, draw: bool) -> None:
    frames = sum(video.frames for video in made.videos)
    places = [f"{made.images} images"] if made.images or not frames else []
    places += [f"{frames} frames"] if made.videos else []
    classes = ", ".join(f"{name} {count}" for name, count in made.detections.most_common())
    classes = f": {classes}" if classes else ""
    total = made.detections.total()
    out.say(f"{total} found in {' and '.join(places)}, score above {threshold:.3g}{why}{classes}")
    for video in made.videos:
        parts = [f"{video.frames} frames, {clock(video.seconds)}"]
        parts += [f"{video.objects} objects"] if video.objects is not None else []
        parts += [f"{video.dropped} frames dropped, as they came faster than they could be looked at"] * bool(
            video.dropped
        )
        parts += ["without its sound"] * video.audio_dropped + ["stopped"] * video.stopped
        parts += [video.problem] if video.problem else []
        out.say(f"{video.video.shown}: " + "; ".join(parts))
    if made.unreadable:
        out.say(f"{len(made.unreadable)} that could not be read are left out")
    for path, reason in made.unwritten[:SHOWN]:
        out.say(f"{path}: {reason}")
    if made.unwritten:
        out.say(f"{len(made.unwritten)} images of which a file could not be written, because of its name or size")
    for note, names in made.notes.items():
        out.say(f"{len(names)} images: {note}, {listed(names, SHOWN)}")
    for reason in dict(Counter(reason for _, reason in made.passed_over).most_common()):
        names = [name for name, why in made.passed_over if why == reason]
        out.say(f"{len(names)} passed over ({reason}): {listed(names, SHOWN)}")
    files = ", ".join(str(file.relative_to(made.output)) for file in made.files)
    drawn = "the drawn images" if draw and made.images else ""
    out.say(f"in {made.output}: " + " and ".join(filter(None, [drawn, files])))


def _as_json(made: VideoMade) -> dict[str, Any]:
    return {
        "source": made.video.shown,
        "frames": made.frames,
        "seconds": made.seconds,
        "detections": dict(made.detections),
        "objects": made.objects,
        "dropped": made.dropped,
        "stopped": made.stopped,
        "problem": made.problem,
        "files": made.files,
    }
