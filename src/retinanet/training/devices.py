"""Settings to Lightning Fabric: devices, processes, machines, precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from lightning.fabric import Fabric

from retinanet.config import TrainSettings
from retinanet.errors import RequestError, WorkError, first_line
from retinanet.precision import Precision, choose
from retinanet.training.step import Mixed


def first_process(fabric: Fabric, action: Callable[[], None]) -> None:
    """Do something in the first process alone; where that fails all processes fail, and none waits for another."""
    problem: RequestError | WorkError | None = None
    if fabric.is_global_zero:
        try:
            action()
        except (RequestError, WorkError) as error:
            problem = error
    if fabric.world_size > 1:
        problem = fabric.broadcast(problem)
    if problem is not None:
        raise problem


def make_fabric(settings: TrainSettings) -> tuple[Fabric, Precision]:
    """The Fabric that runs the training, and the precision that it computes in.

    Raises:
        RequestError: there is no such accelerator, device, strategy or precision on this machine.
    """
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its notes on precision and seeds say nothing new
    # What it warns of (a GPU that is not used, workers) is either asked for or not its business here.
    warnings.filterwarnings("ignore", module="lightning.*")
    sharded = next((name for name in ("fsdp", "deepspeed", "model_parallel") if name in settings.strategy), None)
    if sharded is not None:
        raise RequestError(f"train.strategy {settings.strategy}: weights spread over devices cannot be saved; use ddp")
    accelerator = _default() if settings.accelerator == "auto" else settings.accelerator
    device = "cuda" if accelerator == "gpu" else accelerator
    try:
        precision = choose(settings.precision, device)
        mixed = None if precision == "fp32" else Mixed("bf16-mixed" if precision == "bf16" else "16-mixed", device)
        # "auto" on a CPU is one process: more would share its cores and the bandwidth of its memory.
        devices = "1" if settings.devices == "auto" and device == "cpu" else settings.devices
        fabric = Fabric(
            accelerator=accelerator,
            devices=int(devices) if devices.isdigit() else devices,
            num_nodes=settings.nodes,
            strategy=settings.strategy,
            precision="32-true" if precision == "fp32" else None,
            plugins=mixed,
        )
    except (ValueError, RuntimeError, TypeError, ImportError) as error:
        reason = first_line(error)
        raise RequestError(
            f"train.accelerator {settings.accelerator}, devices {settings.devices}, nodes {settings.nodes}, "
            f"strategy {settings.strategy} do not work here: {reason}"
        ) from error
    return fabric, precision


def _default() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
