"""Where the time goes."""

import time

import pytest
import torch

from retinanet.training.clock import Clock


def test_parts_are_summed():
    clock = Clock(torch.device("cpu"), {"data": 5.0})
    begin = time.perf_counter()
    for _ in range(2):
        with clock.part("forward"):
            time.sleep(0.02)
        with clock.part("data", on_device=False):
            time.sleep(0.01)
    passed = time.perf_counter() - begin
    seconds = clock.seconds()
    assert set(seconds) == {"data", "forward"}
    assert 0.04 <= seconds["forward"] <= passed
    assert 5.02 <= seconds["data"] <= 5 + passed
    assert clock.seconds() == seconds, "asking changes nothing"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_work_counts_not_its_order():
    device = torch.device("cuda")
    clock = Clock(device)
    a = torch.randn(4096, 4096, device=device)
    with clock.part("forward"):
        for _ in range(20):
            a = a @ a * 1e-3
    assert clock.seconds()["forward"] > 1e-3
