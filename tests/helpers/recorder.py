"""A callback that keeps the events of a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from retinanet.training.callbacks import Callback
from retinanet.training.events import Event

E = TypeVar("E", bound=Event)


class Recorder(Callback):
    """Keeps all events in ``events``, in their order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


class Calling(Callback):
    """Calls a function with each event."""

    def __init__(self, function: Callable[[Event], None]) -> None:
        self.on_event = function  # type: ignore[method-assign]
