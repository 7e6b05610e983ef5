import pytest
import torch

from retinanet import precision


def test_a_named_precision_is_taken_as_it_is():
    for name in ("fp32", "bf16", "fp16"):
        assert precision.choose(name, "cpu") == name


def test_auto_follows_what_the_processor_says():
    flags = set()
    with open("/proc/cpuinfo") as lines:
        flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    if not flags:
        pytest.skip("no flags in /proc/cpuinfo on this machine")
    expected = "bf16" if {"avx512_bf16", "amx_bf16", "amx_tile"} & flags else "fp32"
    assert precision.choose("auto", torch.device("cpu")) == expected


def test_auto_is_fp32_on_a_device_without_known_bf16():
    assert precision.choose("auto", torch.device("meta")) == "fp32"


def test_auto_is_fp32_where_torch_has_no_such_check(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert precision.choose("auto", "cpu") == "fp32"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, bf16, fp16, not 'int8'"):
        precision.choose("int8", "cpu")
