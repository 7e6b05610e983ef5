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
