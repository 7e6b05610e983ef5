"""retinanet bench"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.cli.console import Output
from retinanet.cli.options import Common
from retinanet.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinanet.bench import Work


def bench(
    *,
    rounds: int = 5,
    training: Annotated[bool, Parameter(negative="--no-training")] = True,
    common: Common | None = None,
) -> None:
    """Compare this machine's speed with torchvision's RetinaNet: same weights, same work, both in turn.

    Takes a few minutes on two cores. Leave the machine alone meanwhile.

    Parameters
    ----------
    rounds
        How often each side does each piece of work; medians are shown.
    training
        Measure a training step too, which takes longest.
    """
    out = Output(common)
    if rounds < 1:
        raise RequestError(f"--rounds must be at least 1, not {rounds}")
    out.note("importing PyTorch and torchvision")

    from retinanet import bench as work
    from retinanet.precision import choose

    precision = choose("auto", "cpu")
    machine = work.machine()
    out.say(machine, "")
    works: list[Callable[[], Work]] = [
        work.focal_loss,
        work.box_matching,
        work.post_processing,
        work.inference,
    ]
    if training:
        works.append(lambda: work.training_step(precision=precision))
    made = []
    out.say(f"{'':62} {'ours':>9} {'torchvision':>12}  times faster (range)")
    for number, each in enumerate(works, 1):
        with out.progress.status(f"measuring {number} of {len(works)}"):
            made.append(each().compare(rounds).row())
        r = made[-1]
        out.say(
            f"{r['name']:62} {_time(r['ours_seconds']):>9} {_time(r['torchvision_seconds']):>12}  "
            f"{r['ratio']:.1f} ({r['ratio_low']:.1f} to {r['ratio_high']:.1f})"
        )
    out.json({"machine": machine, "comparisons": made})


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
