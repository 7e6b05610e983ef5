"""Which device is chosen, and what runs on one without float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from helpers.pretended_mps import pretended_mps
from helpers.tiny_run import tiny
from retinanet import Detector, RetinaNet
from retinanet.common.devices import choose_device, device_name, fastest_device, has_float64, moved
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings, OhemSettings
from retinanet.losses.criterion import Criterion
from retinanet.training.step import Learner


@pytest.fixture
def mps() -> Iterator[torch.device]:
    with pretended_mps() as device:
        yield device


@pytest.mark.parametrize(
    ("cuda", "apple", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_cuda_comes_before_mps_before_the_cpu(
    cuda: bool, apple: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    assert fastest_device().type == choose_device().type == choose_device("auto").type == chosen


def test_a_device_by_its_name() -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["", "gpu9", "xla:0", "cuda:99", 99, "99", True, 1.5, ["cpu"]])
def test_no_such_device(device: object) -> None:
    with pytest.raises(RequestError, match="device"):
        choose_device(device)


def test_the_cpu_has_float64_and_a_name() -> None:
    cpu = torch.device("cpu")
    assert has_float64(cpu)
    assert not has_float64(torch.device("mps"))
    assert device_name(cpu) == "cpu"
    tensor = torch.ones(2)
    assert moved(tensor, cpu) is tensor


def test_the_pretended_device_refuses_what_the_real_one_refuses(mps: torch.device) -> None:
    tensor = torch.ones(2).to(mps)
    for use in (
        lambda: tensor.double(),
        lambda: tensor.to(torch.float64),
        lambda: torch.ones(2, dtype=torch.float64).to(mps),
        lambda: torch.zeros(2, dtype=torch.float64, device=mps),
        lambda: tensor.sum(dtype=torch.float64),
    ):
        with pytest.raises(TypeError, match="MPS"):
            use()
    with pytest.raises(RuntimeError, match="same device"):
        tensor + torch.ones(2)


def scattered(**postprocessing: object) -> RetinaNet:
    """A network whose random weights give many different scores and boxes."""
    torch.manual_seed(0)
    settings = tiny().model
    changed = dataclasses.replace(settings.postprocessing, **postprocessing)
    model = RetinaNet(dataclasses.replace(settings, postprocessing=changed), 3, load_weights=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("changes", [{}, {"clip": "before", "inclusive": True}], ids=["after", "inclusive"])
def test_a_detector_gives_the_same_boxes_without_float64(mps: torch.device, changes: dict[str, object]) -> None:
    model = scattered(**changes).eval()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90, 130, 3), dtype=np.uint8) for _ in range(3)]
    options = {"threshold": 0.01, "max_detections": 50}
    expected = Detector(model, ["a", "b", "c"]).predict(images, **options)
    detector = Detector(model.to(mps), ["a", "b", "c"])
    assert detector.device == mps
    for here, there in zip(expected, detector.predict(images, **options), strict=True):
        assert len(here) > 10
        assert type(there.boxes) is torch.Tensor
        torch.testing.assert_close(there.boxes, here.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(there.scores, here.scores, atol=1e-5, rtol=0)
        assert torch.equal(there.labels, here.labels)


LOSSES = {
    "focal": LossSettings(),
    "per class": LossSettings(alphas={"a": 0.5}, class_weights={"b": 2.0}),
    "per image": LossSettings(normalizer="image", box="giou"),
    "hinge": LossSettings(kind="hinge", box="l1"),
    "ohem": LossSettings(gamma=0.0, alpha=None, ohem=OhemSettings(batch=32)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_training_step_has_the_same_losses_without_float64(mps: torch.device, name: str) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[64, 90], [60, 96]])
    boxes = [torch.tensor([[5.0, 5.0, 40.0, 44.0], [50.0, 10.0, 80.0, 30.0]]), torch.zeros((0, 4))]
    labels = [torch.tensor([0, -2]), torch.zeros(0, dtype=torch.int64)]

    def step(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses, and the gradient of the first weights."""
        learner = Learner(scattered(), Criterion(LOSSES[name], class_names=["a", "b", "c"])).to(device).train()
        targets = learner.criterion.match(torch.cat(learner.model.anchors(64, 96, device)), boxes, labels)
        losses = torch.stack(learner(moved(images, device), moved(sizes, device), targets))
        (losses.sum() / learner.criterion.normalizer(targets)).backward()
        gradient = next(learner.parameters()).grad
        assert gradient is not None
        assert losses.device == gradient.device == device
        return losses.detach().cpu(), gradient.cpu()

    for here, there in zip(step(torch.device("cpu")), step(mps), strict=True):
        assert here.abs().sum() > 0
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_the_networks_own_losses_are_the_same_without_float64(mps: torch.device) -> None:
    """``model(images, targets)``, with images and targets in the CPU's memory."""
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 44.0]]), "labels": torch.tensor([2])}]
    here, there = scattered()([image], targets), scattered().to(mps)([image], targets)
    assert here.keys() == there.keys()
    for name, loss in here.items():
        torch.testing.assert_close(there[name].cpu(), loss, rtol=1e-3, atol=1e-4)
