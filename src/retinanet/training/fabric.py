"""Lightning Fabric from settings: devices, processes, machines, precision."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from torch import distributed as dist

from retinanet.common.devices import fastest_device
from retinanet.common.errors import RequestError, first_line
from retinanet.common.precision import Precision, choose
from retinanet.config.settings import TrainSettings
from retinanet.training.step import Mixed


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which Lightning logs no notes and no warnings: none of them helps a user of this project."""
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def launch(fabric: Fabric) -> None:
    """Start the processes, or join those that a launcher has started."""
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if fabric.world_size > 1 and restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torchrun keeps its store when it restarts the workers. Without a new prefix, a worker would read the old
        # addresses of the others from it.
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        dist.init_process_group(
            dist.get_default_backend_for_device(fabric.device),
            store=dist.PrefixStore(f"restart {restarts}", store),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
    with quiet():
        fabric.launch()


def seed(device: torch.device, number: int) -> None:
    """Seed torch's random numbers on the CPU and on ``device``. (``torch.manual_seed`` would seed every GPU.)"""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def make_fabric(settings: TrainSettings) -> tuple[Fabric, Precision]:
    """The Fabric that runs the training, and its precision.

    Raises:
        RequestError: this machine has no such accelerator, device, strategy or precision.
    """
    sharded = next((name for name in ("fsdp", "deepspeed", "model_parallel") if name in settings.strategy), None)
    if sharded is not None:
        raise RequestError(f"train.strategy {settings.strategy}: sharded weights cannot be saved; use ddp")
    accelerator = fastest_device().type if settings.accelerator == "auto" else settings.accelerator
    device = "cuda" if accelerator == "gpu" else accelerator
    try:
        precision = choose(settings.precision, device)
        mixed = None if precision == "fp32" else Mixed("bf16-mixed" if precision == "bf16" else "16-mixed", device)
        # On a CPU "auto" is one process: more would compete for its cores and memory bandwidth.
        devices = "1" if settings.devices == "auto" and device == "cpu" else settings.devices
        with quiet():
            fabric = Fabric(
                accelerator=accelerator,
                devices=int(devices) if devices.isdigit() else devices,
                num_nodes=settings.nodes,
                strategy=settings.strategy,
                precision="32-true" if precision == "fp32" else None,
                plugins=mixed,
            )
    except (ValueError, RuntimeError, TypeError, ImportError) as error:
        names = ("accelerator", "devices", "nodes", "strategy", "precision")
        wanted = [(name, getattr(settings, name)) for name in names]
        given = [f"train.{name} {str(value).rstrip(',')}" for name, value in wanted if value not in ("auto", 1)]
        raise RequestError(f"{', '.join(given) or device} cannot be used here: {first_line(error)}") from error
    return fabric, precision
