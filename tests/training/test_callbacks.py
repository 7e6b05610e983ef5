"""What callbacks learn of how a run ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError
from retinanet.training.callbacks import Callback, closing
from retinanet.training.events import Ended, Started, StepDone
from retinanet.training.signals import Stopped
from retinanet.training.trainer import train


class Watch(Callback):
    """Keeps the calls, and may do something at step 2."""

    def __init__(self, at_two: Any = lambda: None) -> None:
        self.calls: list[Any] = []
        self.at_two = at_two

    def on_start(self, trainer: Any, event: Started) -> None:
        assert (trainer.folder.path / "run.json").is_file()
        self.calls.append("start")

    def on_step(self, trainer: Any, event: StepDone) -> None:
        if event.step == 2:
            self.at_two()

    def on_end(self, trainer: Any, event: Ended) -> None:
        self.calls.append("end")

    def on_close(self, error: BaseException | None) -> None:
        self.calls.append(("close", type(error)))


def fail() -> None:
    raise OSError("no space left")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_finished(data: Path, tmp_path: Path) -> None:
    watch, again = Watch(), Watch()
    train(data, tiny(steps=2, eval_every=0.0), tmp_path / "run", callbacks=[watch])
    assert watch.calls == ["start", "end", ("close", type(None))]
    train(data, tiny(steps=2, eval_every=0.0), tmp_path / "run", resume=True, callbacks=[again])
    assert again.calls == [("close", type(None))]


@pytest.mark.parametrize(("event", "kind"), [(fail, OSError), (interrupt, Stopped)])
def test_ended_early(data: Path, tmp_path: Path, event: Any, kind: type[BaseException]) -> None:
    watch, other = Watch(event), Watch()
    with pytest.raises(kind):
        train(data, tiny(steps=6, eval_every=0.0), tmp_path / "run", callbacks=[watch, other])
    assert watch.calls == other.calls == ["start", ("close", kind)]


def test_failed_before_the_start(data: Path, tmp_path: Path) -> None:
    watch = Watch()
    with pytest.raises(RequestError):
        train(tmp_path / "nothing", tiny(), tmp_path / "run", callbacks=[watch])
    assert watch.calls == [("close", RequestError)]


def test_all_are_closed_even_if_one_fails() -> None:
    class Failing(Callback):
        def on_close(self, error: BaseException | None) -> None:
            raise OSError("cannot close")

    first, last = Watch(), Watch()
    with pytest.raises(ValueError, match="the reason") as caught, closing([first, Failing(), last]):
        raise ValueError("the reason")
    assert first.calls == last.calls == [("close", ValueError)]
    assert "cannot close" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="cannot close"), closing([first, Failing(), last]):
        pass
    assert first.calls[1] == last.calls[1] == ("close", type(None))
