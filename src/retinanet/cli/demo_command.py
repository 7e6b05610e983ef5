"""retinanet demo"""

from __future__ import annotations

from pathlib import Path

from retinanet.cli.console import Output, class_table, number
from retinanet.cli.options import Common
from retinanet.cli.progress import Progress
from retinanet.cli.train_command import next_folder
from retinanet.config.settings import seconds

TRAIN = "240s"


def demo(*, output: Path | None = None, budget: str = TRAIN, common: Common | None = None) -> None:
    """Train a small detector on scenes of handwritten digits, measure it and draw what it finds.

    Needs no data, no weights and no network; about four minutes on two CPU cores.

    Parameters
    ----------
    output
        A new folder for the scenes, the run and the drawn predictions; by default the next free runs/demo-1, ...
    budget
        Time for the training, such as 90s or 10m.
    """
    out = Output(common)
    seconds(budget, "--budget")
    folder = output or next_folder(Path("demo"))
    out.note(
        f"handwritten digits on photographs, a small RetinaNet from scratch, {budget} of training; all in {folder}"
    )

    import retinanet.cli.demo_run

    with Progress(out) as progress:
        made = retinanet.cli.demo_run.demo(
            folder,
            budget,
            on_scene=progress.counter("making scenes"),
            callbacks=[progress],
            on_image=progress.counter("drawing"),
        )
    last = made.summary["last"]
    out.say("", "On scenes of digits and image parts that training never saw:", "")
    out.console.print(class_table(made.per_class))
    out.say(
        "",
        f"AP {number(last['AP'])}, AP50 {number(last['AP50'])}, AP75 {number(last['AP75'])} "
        f"after {made.summary['steps']} steps",
        "",
        f"scenes       {made.scenes}",
        f"detector     {made.run}/best.safetensors",
        f"report       {made.run}/report.html",
        f"truth, found {made.run}/validation.png",
        f"predictions  {made.predictions}",
        "",
        "Next, with your own images (a folder in COCO, Pascal VOC or YOLO layout):",
        "  retinanet train DATA --config scratch-small --budget 15m",
        f"  retinanet evaluate {made.run} {made.scenes}",
    )
    out.json(
        {
            "scenes": made.scenes,
            "run": made.run,
            "predictions": made.predictions,
            **made.summary,
            "per_class": made.per_class,
        }
    )
