"""retinanet demo"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from retinanet.cli.options import Common, output_of
from retinanet.common.atomic_files import require_new
from retinanet.common.run_names import next_folder
from retinanet.config import recipes
from retinanet.config.settings import seconds
from retinanet.terminal.console import class_table, number
from retinanet.terminal.progress import Progress

RECIPE = "digits"
BUDGET = "240s"
THRESHOLD = 0.4  # score above which detections are drawn
SCENES: dict[str, Any] = {"train": 1200, "val": 100, "digits": (3, 7)}  # arguments of retinanet.data.digits.write


def demo(
    *,
    output: Path | None = None,
    budget: Annotated[str, Parameter(metavar="TIME")] = BUDGET,
    common: Common | None = None,
) -> None:
    """Train a small detector on scenes of handwritten digits, evaluate it, and draw its detections.

    Needs no data, no weights and no network. Takes about four minutes on two CPU cores.

    Examples
    --------
    retinanet demo
    retinanet demo --budget 90s --output digits

    Parameters
    ----------
    output
        A new folder for the scenes, the run and the drawn detections. [default: next free runs/demo-1]
    budget
        Time for the training, such as 90s or 10m.
    """
    out = output_of(common)
    seconds(budget, "--budget")
    folder = output or next_folder(Path("demo"))
    require_new(folder, "with --output")
    out.note(f"handwritten digits on photographs, a small RetinaNet from scratch, {budget} of training, in {folder}")

    from retinanet.api import loading
    from retinanet.data import digits
    from retinanet.predict.files import predict_files
    from retinanet.predict.predictor import Callbacks
    from retinanet.training.trainer import train

    run, predictions = folder / "run", folder / "predictions"
    settings = recipes.load(RECIPE, {"train": {"budget": budget}})
    with Progress(out) as progress:
        scenes = digits.write(folder / "scenes", **SCENES, on_scene=progress.counter("making scenes"))
        summary = train(scenes, settings, run, callbacks=[progress])
        detector = loading.load(run)
        drawing = Callbacks(on_images=progress.counter("drawing"))
        predict_files(detector, [scenes / "val"], predictions, threshold=THRESHOLD, callbacks=drawing)
    per_class = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["per_class"]
    last = summary["last"]
    out.say("", "On new scenes, with digits and photographs that were not in training:", "")
    out.console.print(class_table(per_class))
    out.say(
        "",
        f"AP {number(last['AP'])}, AP50 {number(last['AP50'])}, AP75 {number(last['AP75'])} "
        f"after {summary['steps']} steps",
        "",
        f"scenes       {scenes}",
        f"detector     {run}/best.safetensors",
        f"report       {run}/report.html",
        f"detections   {run}/validation.png, beside the ground truth",
        f"predictions  {predictions}",
        "",
        "Next, with your own images (a labelled folder, such as COCO, Pascal VOC or YOLO):",
        "  retinanet train DATA --budget 15m",
        f"  retinanet evaluate {run} {scenes}",
    )
    out.json({"scenes": scenes, "run": run, "predictions": predictions, **summary, "per_class": per_class})
