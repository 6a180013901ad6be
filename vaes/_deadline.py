"""A limit on how long code of a user's may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TimeUp(BaseException):
    """Passes through a loop that catches every Exception."""


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Raises TimeoutError, naming what took so long, when the body is not done in time.

    In the main thread alone, where signals arrive; the body is told again every second.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    except TimeUp:
        raise TimeoutError(f"{what} did not end within {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
