import os
import subprocess
import sys

import pytest
import torch

from retinanet.common import precision
from retinanet.common.errors import RequestError


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """The suite itself is also run with the variable set."""
    monkeypatch.delenv(precision.VARIABLE, raising=False)


def test_a_named_precision_is_taken_as_it_is():
    for name in ("fp32", "bf16", "fp16"):
        assert precision.choose(name, "cpu") == name


def test_auto_follows_what_the_processor_says():
    flags = set()
    with open("/proc/cpuinfo") as lines:
        flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    if not flags:
        pytest.skip("no flags in /proc/cpuinfo on this machine")
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("oneDNN is told to use less than this CPU has")
    expected = "bf16" if {"avx512_bf16", "amx_bf16", "amx_tile"} & flags else "fp32"
    assert precision.choose("auto", torch.device("cpu")) == expected


@pytest.mark.slow
def test_auto_is_fp32_where_onednn_would_emulate_bf16():
    code = "from retinanet.common.precision import choose; print(choose('auto', 'cpu'))"
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "fp32\n"


def test_auto_is_fp32_on_a_device_without_known_bf16():
    assert precision.choose("auto", torch.device("meta")) == "fp32"


def test_auto_is_fp32_where_torch_has_no_such_check(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert precision.choose("auto", "cpu") == "fp32"


def test_an_unknown_precision_is_refused():
    assert issubclass(RequestError, ValueError)
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, bf16, fp16, not 'int8'"):
        precision.choose("int8", "cpu")


@pytest.mark.parametrize("value", ["fp32", "bf16", "fp16"])
def test_the_environment_says_what_auto_means(monkeypatch, value):
    monkeypatch.setenv(precision.VARIABLE, value)
    assert precision.choose("auto", "cpu") == value
    assert precision.choose("fp32", "cpu") == "fp32"
    assert precision.choose("bf16", "cpu") == "bf16"
    for request in (None, "auto"):
        assert precision.for_model(request, "cpu")[:2] == (value, False)
    assert precision.for_model(None, "cpu", "torchvision, ResNet-50 v1")[:2] == ("fp32", False)


@pytest.mark.parametrize("value", ["", "auto"])
def test_an_environment_without_an_opinion(monkeypatch, value):
    expected = precision.choose("auto", "cpu")
    monkeypatch.setenv(precision.VARIABLE, value)
    assert precision.choose("auto", "cpu") == expected


def test_an_unknown_precision_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv(precision.VARIABLE, "fp8")
    with pytest.raises(RequestError, match="RETINANET_PRECISION must be one of auto, fp32, bf16, fp16, not 'fp8'"):
        precision.choose("auto", "cpu")
    assert precision.choose("fp32", "cpu") == "fp32"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_model_of_another_project_computes_in_fp32_unless_asked_otherwise(monkeypatch, has_bf16):
    monkeypatch.setattr(precision, "computes_bf16", lambda device: has_bf16)
    fastest = "bf16" if has_bf16 else "fp32"
    for request, origin, expected in (
        (None, "torchvision, ResNet-50 v1", ("fp32", False)),
        ("auto", "torchvision, ResNet-50 v1", (fastest, True)),
        ("bf16", "torchvision, ResNet-50 v1", ("bf16", False)),
        (None, None, (fastest, True)),
        ("auto", None, (fastest, True)),
        ("fp32", None, ("fp32", False)),
    ):
        chosen = precision.for_model(request, "cpu", origin)
        assert (chosen.precision, chosen.fast) == expected
    assert "torchvision" in precision.for_model(None, "cpu", "torchvision, ResNet-50 v1").why
