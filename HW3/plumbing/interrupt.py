"""Ctrl-C, and the SIGTERM of torchrun or a cluster, as a wish that a run grants when it can."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """`wanted` tells that somebody asked to stop. A second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self.wanted = False
        self._at_once = False

    def listen(self) -> None:
        """From now on signals set `wanted` instead of ending the process."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    @contextmanager
    def leaves(self) -> Iterator[None]:
        """Around work that may be dropped half done: a signal ends it there and then."""
        self._at_once = True
        try:
            yield
        except _Leave:
            pass
        finally:
            self._at_once = False

    def _on_signal(self, number: int, frame: object) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True
        if self._at_once:
            raise _Leave


class _Leave(BaseException):
    """Not an Exception, so that nobody's `except Exception` swallows it."""
