"""What a training step costs on this machine, found by doing one: seconds and memory for an image."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from retinanet.common.precision import DTYPES, Precision
from retinanet.config.settings import Settings
from retinanet.model import RetinaNet
from retinanet.ops.iou_assigner import match
from retinanet.training.step import Learner

TIMES, ENOUGH = 6, 1.5  # steps of a trial, as long as those before took no more seconds; at least two
IMAGES = 2  # of a trial's batch: one alone is not representative, more take their time
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cost:
    seconds: float
    """Of a training step, for each image."""
    bytes: float
    """Memory that forward and backward need for each image, beside the weights."""


def measure(
    settings: Settings, classes: int, size: tuple[int, int], device: torch.device, precision: Precision
) -> Cost:
    """Forward and backward of two grey images of ``size`` (height and width, multiples of 32), a few times.

    The first step is slow; the time is the median of the others.

    Raises:
        torch.cuda.OutOfMemoryError: not even two images fit.
    """
    height, width = size
    model = RetinaNet(settings.model, classes, load_weights=False).to(device).train()
    learner = Learner(model, dataclasses.replace(settings.loss, alphas={}, class_weights={}))
    images = torch.full((IMAGES, 3, height, width), 128, dtype=torch.uint8, device=device)
    sizes = torch.tensor([[height, width]] * IMAGES, device=device)
    anchors = torch.cat(model.anchors(height, width, device))
    side = min(settings.model.anchors.sizes[0], height, width)
    box = torch.tensor([[0.0, 0.0, side, side]])
    kept = [0]

    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        kept[0] += tensor.nbytes * (tensor.data_ptr() not in weights)
        return tensor

    took: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    while len(took) < 2 or (len(took) < TIMES and sum(took) < ENOUGH):
        kept[0] = 0
        begin = time.perf_counter()
        targets = match(anchors, [box] * IMAGES, [torch.zeros(1, dtype=torch.int64)] * IMAGES, settings.matching)
        autocast = torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast:
            loss = sum(learner(images, sizes, targets))
        torch.as_tensor(loss).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - begin)
    if device.type == "cuda":
        needed = float(torch.cuda.max_memory_allocated(device) - before)
    else:
        # What the graph keeps; a tensor kept for two operations counts twice, gradients of activations come and go.
        needed = float(kept[0])
    return Cost(median(took[1:]) / IMAGES, needed / IMAGES)


def free_memory(device: torch.device) -> float | None:
    """Bytes that may be used on ``device``; None where it cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # a container may have less
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            free = min(free, float(limit) - float(used))
    except (OSError, ValueError):
        pass
    return free


def cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
