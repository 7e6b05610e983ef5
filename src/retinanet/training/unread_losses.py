"""Losses that stay on the device until they are read."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from retinanet.training.collectives import all_reduce

READ_EVERY = 20
"""Steps between two readings on a GPU. To read a loss, the CPU has to wait for the GPU."""
READ_FIRST = 3
"""The same until the first step is timed."""


class UnreadLosses:
    """The losses of the steps since the last reading, and the time that these steps took."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, float, Tensor]] = []
        self.restart()

    def add(self, step: int, lr: float, losses: Tensor) -> None:
        """Keep the losses of a step: (2,), this process's share of the class and the box loss."""
        self._steps.append((step, lr, losses))

    def due(self, device: torch.device, timed: bool) -> bool:
        """Whether to read now; ``timed`` says whether the time of a step is known."""
        return device.type == "cpu" or len(self._steps) >= (READ_EVERY if timed else READ_FIRST)

    def read(self) -> tuple[list[tuple[int, float, float, float]], float]:
        """Read the losses of all processes. Every process must call this at the same step.

        Returns:
            Step, learning rate, class loss and box loss of each step since the last reading, and seconds per step.
        """
        if not self._steps:
            return [], 0.0
        losses = all_reduce(torch.stack([values for _, _, values in self._steps])).tolist()  # waits for the device
        step_seconds = (time.monotonic() - self._read_at) / len(self._steps)
        rows = [(step, lr, *both) for (step, lr, _), both in zip(self._steps, losses)]
        self._steps.clear()
        self.restart()
        return rows, step_seconds

    def restart(self) -> None:
        """Time the next steps from now."""
        self._read_at = time.monotonic()

    def exclude(self, seconds: float) -> None:
        """Do not count these seconds as the time of a step."""
        self._read_at += seconds
