"""Ctrl-C and SIGTERM while training: finish the step, save, then stop."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

ECHO = 1.0  # seconds within which a launcher may deliver the same signal again


class Stopped(KeyboardInterrupt):
    """Stopped by a signal, after saving.

    Attributes:
        code: the conventional exit code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.code = 128 + number


class Interrupt:
    """A block in which the first signal only sets ``signal`` (0 before it). A second signal stops at once.

    Signals can be caught in the main thread only; in other threads this does nothing.

    Args:
        several: this is one of several processes. A cluster manager may signal them directly and through their
            launcher, so signals within a second of the first one are the same signal.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, enabled: bool = True, several: bool = False) -> None:
        self.signal = 0
        self._at = 0.0
        self._echo = ECHO if several else 0.0
        self._enabled = enabled and threading.current_thread() is threading.main_thread()

    @property
    def requested(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> Interrupt:
        if self._enabled:
            self._before = [signal.signal(number, self._handle) for number in self.SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled:
            for number, handler in zip(self.SIGNALS, self._before):
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal == 0:
            self.signal, self._at = number, now
        elif now - self._at >= self._echo:
            raise Stopped("", number)
