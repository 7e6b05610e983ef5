"""Names of devices as people write them: cpu, mps, cuda, cuda:1, and numbers of GPUs such as 0 or 0,1."""

from __future__ import annotations

import re

from retinanet.common.errors import RequestError

_NAMED = re.compile(r"([a-z]+)(?::([0-9]+))?")
_GPUS = re.compile(r"[0-9]+(,[0-9]+)*,?")


def training_devices(text: str) -> dict[str, str]:
    """The settings ``train.accelerator`` and ``train.devices`` for a device, or for several GPUs such as "0,1".

    Raises:
        RequestError: ``text`` has another form.
    """
    name = re.sub(r"\s+", "", text.lower())
    if name == "auto":
        return {"accelerator": "auto", "devices": "auto"}
    if _GPUS.fullmatch(name):
        # The comma at the end makes a list of one: "2" alone would be a number of devices.
        return {"accelerator": "cuda", "devices": name.strip(",") + ","}
    if match := _NAMED.fullmatch(name):
        kind, number = match.groups()
        devices = "auto" if number is None or kind == "cpu" else f"{number},"
        return {"accelerator": "cuda" if kind == "gpu" else kind, "devices": devices}
    raise RequestError(f"device {text}: give cpu, mps, cuda, or the numbers of GPUs such as 0 or 0,1")
