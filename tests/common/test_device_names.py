"""Devices of a training as people write them."""

import pytest

from retinanet.common.device_names import training_devices
from retinanet.common.errors import RequestError


@pytest.mark.parametrize(
    ("text", "accelerator", "devices"),
    [
        ("auto", "auto", "auto"),
        ("cpu", "cpu", "auto"),
        ("mps", "mps", "auto"),
        ("cuda", "cuda", "auto"),
        ("gpu", "cuda", "auto"),
        ("0", "cuda", "0,"),
        ("cuda:1", "cuda", "1,"),
        ("0,1", "cuda", "0,1,"),
        ("0, 2", "cuda", "0,2,"),
    ],
)
def test_training_devices(text, accelerator, devices):
    assert training_devices(text) == {"accelerator": accelerator, "devices": devices}


@pytest.mark.parametrize("text", ["", "cuda:", "-1", "0;1", "0,cpu"])
def test_what_is_no_device(text):
    with pytest.raises(RequestError, match="give cpu, mps, cuda"):
        training_devices(text)
