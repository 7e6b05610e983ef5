"""The times of the phases of a step."""

import time
from typing import ClassVar

import pytest
import torch

from retinanet.training.step_timer import StepTimer


def test_phases_are_summed():
    timer = StepTimer(torch.device("cpu"), {"data": 5.0})
    begin = time.perf_counter()
    for _ in range(2):
        with timer.time("forward"):
            time.sleep(0.02)
        with timer.time("data", on_device=False):
            time.sleep(0.01)
    passed = time.perf_counter() - begin
    seconds = timer.seconds()
    assert set(seconds) == {"data", "forward"}
    assert 0.04 <= seconds["forward"] <= passed
    assert 5.02 <= seconds["data"] <= 5 + passed
    assert timer.seconds() == seconds, "reading changes nothing"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_work_counts_not_its_order():
    device = torch.device("cuda")
    timer = StepTimer(device)
    a = torch.randn(4096, 4096, device=device)
    with timer.time("forward"):
        for _ in range(20):
            a = a @ a * 1e-3
    assert timer.seconds()["forward"] > 1e-3


class Event:
    """Of a GPU that has finished all events but the last two."""

    made: ClassVar[list] = []

    def __init__(self, enable_timing):
        Event.made.append(self)

    def record(self):
        pass

    def query(self):
        return Event.made.index(self) < len(Event.made) - 2

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1000.0


def test_events_are_read_once_the_gpu_has_passed_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    timer = StepTimer(torch.device("cuda"))
    for _ in range(50):
        with timer.time("forward"):
            pass
        assert len(timer._events) <= 2
    assert timer.seconds() == {"forward": 50.0}
