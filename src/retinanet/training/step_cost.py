"""Measures a training step on this machine: seconds and memory for each image."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from retinanet.common.devices import wait_for
from retinanet.common.precision import DTYPES, Precision
from retinanet.config.settings import Settings
from retinanet.losses.criterion import Criterion
from retinanet.model import RetinaNet
from retinanet.training.step import Learner

MOST_STEPS, ENOUGH = 6, 1.5  # a trial has at most so many steps, and no new one after so many seconds
IMAGES = 2  # in a trial's batch: one image alone is not representative, more would take longer
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """The machine that a run computes on."""

    device: torch.device
    precision: Precision
    processes: int
    workers: int


@dataclass(frozen=True)
class Cost:
    """The cost of each image in a training step."""

    seconds: float
    bytes: float
    """Memory for forward and backward, without the weights."""


def measure(
    settings: Settings, classes: int, size: tuple[int, int], device: torch.device, precision: Precision
) -> Cost:
    """Measure a few steps of forward and backward with two grey images.

    The time is the median without the first step, which is slow.

    Args:
        size: height and width of the images, multiples of 32.

    Raises:
        RuntimeError: two images do not fit.
    """
    height, width = size
    model = RetinaNet(settings.model, classes, load_weights=False).to(device).train()
    criterion = Criterion(dataclasses.replace(settings.loss, alphas={}, class_weights={}), settings.matching)
    learner = Learner(model, criterion)
    images = torch.full((IMAGES, 3, height, width), 128, dtype=torch.uint8, device=device)
    sizes = torch.tensor([[height, width]] * IMAGES, device=device)
    anchors = torch.cat(model.anchors(height, width, device))
    side = min(settings.model.anchors.sizes[0], height, width)
    box = torch.tensor([[0.0, 0.0, side, side]])
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    saved_bytes = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved_bytes
        saved_bytes += tensor.nbytes * (tensor.data_ptr() not in weights)
        return tensor

    took: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    while len(took) < 2 or (len(took) < MOST_STEPS and sum(took) < ENOUGH):
        saved_bytes = 0
        begin = time.perf_counter()
        targets = criterion.match(anchors, [box] * IMAGES, [torch.zeros(1, dtype=torch.int64)] * IMAGES)
        autocast = torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), autocast:
            loss = sum(learner(images, sizes, targets))
        torch.as_tensor(loss).backward()
        wait_for(device)
        took.append(time.perf_counter() - begin)
    if device.type == "cuda":
        needed = float(torch.cuda.max_memory_allocated(device) - before)
    else:
        # The tensors that the graph saves. One that two operations save counts twice, which makes up for gradients.
        needed = float(saved_bytes)
    return Cost(median(took[1:]) / IMAGES, needed / IMAGES)


def free_memory(device: torch.device) -> float | None:
    """Free bytes on ``device``; None if that is unknown."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":  # its memory is the computer's, of which it takes no more than this
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # a container may have less
        limit, used = ((CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            free = min(free, float(limit) - float(used))
    except (OSError, ValueError):
        pass
    return free


def cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
