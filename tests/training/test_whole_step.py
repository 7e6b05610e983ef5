"""A whole training step gives a GPU nothing to be waited for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.tiny_run import tiny
from retinanet.common import threads
from retinanet.data import open_data
from retinanet.data.loader import TrainingSteps
from retinanet.losses import Criterion
from retinanet.model import RetinaNet
from retinanet.training.ema import Ema
from retinanet.training.optimizer import make_optimizer, set_lr
from retinanet.training.step import Learner, backward

WAITS = {"nonzero", "_local_scalar_dense", "masked_select", "equal", "bincount", "unique_dim", "_unique2", "item"}


class NoWaiting(TorchDispatchMode):
    """Fails where a CPU would have to wait for a GPU, or would copy numbers to it one call after the other."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in WAITS, f"{name} reads a result"
        assert name != "lift_fresh", "a tensor is made of Python's numbers in each step"
        return function(*args, **(kwargs or {}))


def test_a_step_waits_for_nothing(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalise, forward, loss, backward, optimiser and average, in PyTorch's operations for a GPU.

    The optimiser is SGD: AdamW counts its steps on the CPU, which reads them there without any wait.
    """
    settings = tiny(accumulate=2, optimizer="sgd", ema=0.9, clip=1.0)
    # Without Triton's kernel PyTorch's operations compute the loss of a GPU where classes have their own weights.
    settings = replace(settings, loss=replace(settings.loss, alphas={"red": 0.6}))
    split = open_data(data, "train")
    torch.manual_seed(0)
    model = RetinaNet(settings.model, len(split.class_names))
    fabric = Fabric(accelerator="cpu", devices=1)
    average = Ema(model, 0.9)
    learner: Any = Learner(model, Criterion(settings.loss, settings.matching, split.class_names))
    learner, steps = fabric.setup(learner, make_optimizer(model, settings.train))
    batches = TrainingSteps(split, settings)
    monkeypatch.setattr(threads, "asynchronous", lambda device: True)
    losses = []
    for step in range(4):
        parts = batches[step % 2]
        with NoWaiting() if step >= 2 else torch.enable_grad():  # the first ones fill caches, of shapes too
            losses.append(backward(fabric, learner, parts))
            fabric.clip_gradients(learner, steps, max_norm=1.0, error_if_nonfinite=False)
            set_lr(steps, 1e-3)
            steps.step()
            steps.zero_grad()
            average.update(model, step)
    assert torch.isfinite(torch.stack(losses)).all()
