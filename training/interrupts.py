"""Interrupts that wait: what changes many numbers changes all of them, or none."""

from __future__ import annotations

import signal
import threading
from typing import Any

try:
    # the same functions as in `signal`, without turning numbers into enums and back: that takes 3 microseconds a call
    import _signal as _bare  # type: ignore[import-not-found]
except ImportError:
    _bare = signal

# Ctrl-C, kill, the end of a session, alarms, and what is left to the user: whatever may have a handler that raises.
NUMBERS = [
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)
]


_holding = False  # in the main thread


class Uninterrupted:
    """`with Uninterrupted():` a signal that arrives meanwhile is delivered right after it, to whom it belongs.

    Signals reach the main thread alone, so in any other this does nothing; nor does it inside of another. What is
    not handled in Python (a SIGTERM that ends the process) is not held back.
    """

    __slots__ = ("_arrived", "_handlers")

    def __enter__(self) -> None:
        global _holding
        self._handlers: list[tuple[int, Any]] | None = None
        if _holding or threading.current_thread() is not threading.main_thread():
            return
        self._handlers = []
        self._arrived: list[int] = []
        try:
            _holding = True
            for number in NUMBERS:
                handler = _bare.getsignal(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    _bare.signal(number, self._note)
        except ValueError:  # the main thread of an interpreter inside of another one: signals do not come here
            _holding, self._handlers = False, None
        except BaseException:  # from the handler of a signal that was not held back yet
            self._give_back(self._handlers)
            raise

    def __exit__(self, *error: object) -> None:
        if self._handlers is not None:
            try:
                self._give_back(self._handlers)
            finally:
                for number in self._arrived:
                    signal.raise_signal(number)

    def _note(self, number: int, frame: Any) -> None:
        if number not in self._arrived:
            self._arrived.append(number)

    def _give_back(self, handlers: list[tuple[int, Any]]) -> None:
        """Every handler goes back to its place; one that raises as soon as it is there does not hinder the others."""
        global _holding
        _holding = False  # as long as the handlers are not back, nobody can come in between
        raised = None
        for _ in range(len(handlers) + 1):
            try:
                for number, handler in handlers:
                    _bare.signal(number, handler)
                break
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised
