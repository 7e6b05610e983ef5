"""What the processes of a run agree on.

A process that enters a collective operation alone waits there for ever. So the first process decides whatever depends
on clocks, files or measured times, and all processes hear of it at the same step: they meet in one small all-reduce
(:func:`agree`), which also says when they meet next. Between two meetings there are no collectives but the gradient's.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch import distributed as dist

from retinanet.common.errors import RequestError, WorkError, first_line

T = TypeVar("T")
SETTLING = 0.3  # seconds for gloo's thread to let go of the last collective's tensors
GRACE = 20.0  # seconds for the other processes to end by themselves once this one has


@dataclass(frozen=True)
class Decision:
    """What all processes do from here to the next meeting."""

    steps: int = 1
    """Training steps until the next meeting."""
    save: bool = False
    evaluate: bool = False
    over: bool = False
    """Training ends here: evaluate for the last time."""
    elapsed: float = 0.0
    """Seconds since the run began, by the clock of the first process."""
    step_seconds: float = 0.0
    reserve: float = 0.0
    """Seconds of a budget that are kept for the last evaluation and the report."""
    expected: float = 0.0
    """Steps that the run will have in all; 0: not known yet."""
    signal: int = 0
    """The signal by which a process was told to stop; 0: none was."""


def agree(fabric: Fabric, decision: Decision, signal_number: int) -> Decision:
    """The first process's ``decision``, with the signal that any process got.

    Every process calls this at the same step.

    Args:
        decision: of the first process; what the others give is not used.
        signal_number: SIGINT or SIGTERM if this process got it, otherwise 0.
    """
    if fabric.world_size == 1:
        return dataclasses.replace(decision, signal=signal_number)
    said = dataclasses.astuple(decision) if fabric.is_global_zero else (0,) * len(dataclasses.fields(Decision))
    got = [float(signal_number == number) for number in (signal.SIGTERM, signal.SIGINT)]
    vector = torch.tensor([*map(float, said), *got], dtype=torch.float64, device=fabric.device)
    *values, terminated, interrupted = all_reduce(vector).tolist()
    fields = dataclasses.fields(Decision)
    kinds: list[type] = [type(field.default) for field in fields]
    agreed = Decision(*(kind(value) for kind, value in zip(kinds, values)))
    number = int(signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0)
    return dataclasses.replace(agreed, signal=number)


def any_process(fabric: Fabric, value: bool) -> bool:
    """Whether ``value`` is true in some process; every process calls this."""
    if fabric.world_size == 1:
        return value
    return bool(all_reduce(torch.tensor(float(value), device=fabric.device)).item())


def all_reduce(tensor: Tensor) -> Tensor:
    """``tensor`` summed over all processes, in place. Fabric's own function waits at a barrier first."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def first_process(fabric: Fabric, action: Callable[[], None]) -> None:
    """Do something in the first process alone; where that fails all processes fail, and none waits for another."""
    _in_processes(fabric, action if fabric.is_global_zero else _nothing)


def every_process(fabric: Fabric, action: Callable[[], T]) -> T:
    """What ``action`` returns here; where it fails in any process, all processes fail with the first one's error."""
    return _in_processes(fabric, action)


def of_first(fabric: Fabric, action: Callable[[], T]) -> T:
    """What ``action`` returns in the first process: times, free memory and shared folders differ between processes."""
    result: list[T] = []
    first_process(fabric, lambda: result.append(action()))
    if fabric.world_size > 1:
        result = fabric.broadcast(result)
    return result[0]


def _in_processes(fabric: Fabric, action: Callable[[], T]) -> T:
    problem: Exception | None = None
    result: Any = None
    try:
        result = action()
    except Exception as error:
        problem = error
    if fabric.world_size > 1:
        told: Exception | None = None  # of the kinds that other processes can unpickle
        if problem is not None:
            told = RequestError(str(problem)) if isinstance(problem, RequestError) else WorkError(_plain(problem))
        problems: list[Exception | None] = [None] * fabric.world_size
        dist.all_gather_object(problems, told)
        problem = problem or next((other for other in problems if other is not None), None)
    if problem is not None:
        raise problem
    return result


def _nothing() -> Any:
    return None


def _plain(error: Exception) -> str:
    return str(error) if isinstance(error, RequestError | WorkError) else f"{type(error).__name__}: {first_line(error)}"


@contextmanager
def all_end(fabric: Fabric) -> Iterator[None]:
    """Within it the end of one process is the end of all, each with a line that says why.

    A connection that breaks because another process has ended becomes a :class:`WorkError`; processes that Fabric
    started are waited for, and killed if they hang.
    """
    ended: int | None = None
    failed = True
    try:
        yield
        failed = False
    except WorkError:
        raise
    except RuntimeError as error:
        if fabric.world_size > 1 and _broken_connection(error):
            raise WorkError(
                "the connection to another process of this run is lost; where it has ended, its own message says why; "
                "go on from the last save with --resume"
            ) from error
        raise
    finally:
        if fabric.world_size > 1 and dist.is_initialized():
            # That thread needs Python's lock for it, and whoever drops the process group waits for that thread and
            # keeps the lock: without this pause, in which nobody has it, both may wait for ever.
            time.sleep(SETTLING)
            if failed:
                # Others may wait for this process in a collective: they hear of its end when its connections close.
                with suppress(RuntimeError):
                    dist.destroy_process_group()
        ended = _end_children(fabric)
    if ended:
        raise WorkError(f"a process of this run ended with exit code {ended}; its own message says why")


def _broken_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _end_children(fabric: Fabric) -> int | None:
    """Wait for the processes that Fabric started from this one, if it did; the exit code of one that failed.

    Fabric's own observer would kill this process where it finds that another one has ended first.
    """
    started: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    children = list(started)
    started.clear()
    deadline = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return next((child.returncode for child in children if child.returncode), None)
