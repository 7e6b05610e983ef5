"""How the processes of a run agree with each other.

A process that enters a collective operation alone waits there for ever. So the first process decides everything that
depends on clocks, files or measured times. All processes receive its decision at the same step, in one small all-reduce
(:func:`agree`). The decision also says when they synchronise next; until then only gradients are reduced.
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
SETTLING = 0.3  # seconds for gloo's thread to release the tensors of the last collective
GRACE = 20.0  # seconds that the other processes have to end by themselves


@dataclass(frozen=True)
class Decision:
    """What all processes do until they synchronise again."""

    steps: int = 1
    """Training steps until they synchronise again."""
    save: bool = False
    evaluate: bool = False
    over: bool = False
    """Training ends here: evaluate for the last time."""
    elapsed: float = 0.0
    """Seconds since the run began, by the clock of the first process."""
    step_seconds: float = 0.0
    reserve: float = 0.0
    """Seconds of a budget that are reserved for the last evaluation and the report."""
    expected: float = 0.0
    """Steps of the whole run; 0 while that is unknown."""
    signal: int = 0
    """The signal that a process received, or 0."""


def agree(fabric: Fabric, decision: Decision, signal_number: int) -> Decision:
    """The ``decision`` of the first process, with the signal that any process received.

    Every process must call this at the same step.

    Args:
        decision: used in the first process only.
        signal_number: SIGINT or SIGTERM if this process received it, otherwise 0.
    """
    if fabric.world_size == 1:
        return dataclasses.replace(decision, signal=signal_number)
    fields = dataclasses.fields(Decision)
    # The other processes send zeros, so the sum is the decision of the first one.
    own = dataclasses.astuple(decision) if fabric.is_global_zero else (0,) * len(fields)
    received = [float(signal_number == number) for number in (signal.SIGTERM, signal.SIGINT)]
    vector = torch.tensor([*map(float, own), *received], dtype=torch.float64, device=fabric.device)
    *values, terminated, interrupted = all_reduce(vector).tolist()
    kinds: list[type] = [type(field.default) for field in fields]
    agreed = Decision(*(kind(value) for kind, value in zip(kinds, values)))
    number = int(signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0)
    return dataclasses.replace(agreed, signal=number)


def any_process(fabric: Fabric, value: bool) -> bool:
    """Whether ``value`` is true in any process. Every process must call this."""
    if fabric.world_size == 1:
        return value
    return bool(all_reduce(torch.tensor(float(value), device=fabric.device)).item())


def all_reduce(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` over all processes, in place. (Fabric's own function waits at a barrier first.)"""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def run_in_first(fabric: Fabric, action: Callable[[], None]) -> None:
    """Run ``action`` in the first process only. If it fails, all processes fail, and none waits for another."""
    run_in_all(fabric, action if fabric.is_global_zero else lambda: None)


def broadcast_from_first(fabric: Fabric, action: Callable[[], T]) -> T:
    """What ``action`` returns in the first process. Times, memory and shared folders differ between processes."""
    result: list[T] = []
    run_in_first(fabric, lambda: result.append(action()))
    if fabric.world_size > 1:
        result = fabric.broadcast(result)
    return result[0]


def run_in_all(fabric: Fabric, action: Callable[[], T]) -> T:
    """What ``action`` returns here. If it fails in a process, all processes fail.

    A process in which it failed raises its own error, the others that of the first process that failed.
    """
    problem: Exception | None = None
    result: Any = None
    try:
        result = action()
    except Exception as error:
        problem = error
    if fabric.world_size > 1:
        problems: list[Exception | None] = [None] * fabric.world_size
        dist.all_gather_object(problems, None if problem is None else _picklable(problem))
        problem = problem or next((other for other in problems if other is not None), None)
    if problem is not None:
        raise problem
    return result


def _picklable(error: Exception) -> Exception:
    """The same error, of a type that other processes can unpickle."""
    if isinstance(error, RequestError):
        return RequestError(str(error))
    return WorkError(str(error) if isinstance(error, WorkError) else f"{type(error).__name__}: {first_line(error)}")


@contextmanager
def end_together(fabric: Fabric) -> Iterator[None]:
    """A block in which all processes end if one ends, each with a line that says why.

    A connection that breaks because another process has ended becomes a :class:`WorkError`. The processes that Fabric
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
                "the connection to another process of this run is lost; if that process has ended, its message says "
                "why; go on from the last save with --resume"
            ) from error
        raise
    finally:
        if fabric.world_size > 1 and dist.is_initialized():
            # Gloo's thread needs Python's lock to release tensors. To destroy the process group
            # is to hold the lock and wait for that thread. Without this pause both may wait for ever.
            time.sleep(SETTLING)
            if failed:
                # Others may wait for this process in a collective. They notice its end when its connections close.
                with suppress(RuntimeError):
                    dist.destroy_process_group()
        ended = _end_children(fabric)
    if ended:
        raise WorkError(f"a process of this run ended with exit code {ended}; its message says why")


def _broken_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _end_children(fabric: Fabric) -> int | None:
    """Wait for the processes that Fabric started from this one, if any; the exit code of one that failed.

    Fabric's own observer would kill this process if another one ended first.
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
