"""Devices as people write them."""

import pytest

from retinanet.common.device_names import one_device, training_devices
from retinanet.common.errors import RequestError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((None, None), ("auto", None), ("cpu", "cpu"), ("MPS", "mps"), ("0", "cuda:0"), ("1,", "cuda:1")),
        *(("gpu", "cuda"), ("cuda:2", "cuda:2"), ("gpu:1", "cuda:1"), (" 3 ", "cuda:3")),
    ],
)
def test_one_device(text, name):
    assert one_device(text) == name


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


@pytest.mark.parametrize("text", ["0,1", "0,1,2"])
def test_several_devices_are_for_training(text):
    with pytest.raises(RequestError, match=r"--device 0,1.* names [23] devices"):
        one_device(text)


@pytest.mark.parametrize("text", ["", "cuda:", "-1", "0;1", "two"])
def test_what_is_no_device(text):
    if text == "two":  # a name that Fabric knows or refuses
        assert training_devices(text)["accelerator"] == "two"
        return
    with pytest.raises(RequestError, match="--device"):
        training_devices(text)
