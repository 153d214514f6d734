"""SIGTERM and SIGINT: a campaign ends between two commits, never within one.

A scheduler that takes a machine away, or Ctrl-C, sends a signal and waits a little. The first one ends the campaign
with a `Stopped` as soon as the commit that is being written is whole; a second one is not caught any more.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_depth = 0  # of nested pieces of work that must be finished
_asked: int | None = None  # the signal that came meanwhile


class Stopped(KeyboardInterrupt):
    """A signal asked for an end; everything committed is safe, and running again resumes.

    Not an `Exception`: nothing that records the errors of plug-ins may take it for one.

    Attributes:
        signal: The signal's number.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal."""
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; everything committed is safe, run the same command again to resume")
        self.signal = number


@contextmanager
def finishing() -> Iterator[None]:
    """What is done inside, or by a function that is decorated, is not interrupted by the signals of `stoppable`.

    DuckDB looks for signals while it works, and makes an exception that a handler raises there into one of its own.

    Raises:
        Stopped: On leaving without an error, if one came meanwhile.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _depth == 0 and _asked is not None:
        _stop(_asked)


def stop_if_asked() -> None:
    """Hear a signal that came within work that then failed, before it is tried again.

    Raises:
        Stopped: One came.
    """
    if _depth == 0 and _asked is not None:
        _stop(_asked)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT raise `Stopped` inside, once; outside of the main thread nothing changes."""
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _heard) for number in SIGNALS}
    try:
        yield
    finally:
        _asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard(number: int, frame: FrameType | None) -> None:
    global _asked
    for other in SIGNALS:  # whoever asks twice means it
        signal.signal(other, signal.SIG_DFL if other == signal.SIGTERM else signal.default_int_handler)
    if _depth:
        _asked = number
    else:
        _stop(number)


def _stop(number: int) -> None:
    global _asked
    _asked = None
    raise Stopped(number)
