"""Interrupts that wait: what changes many numbers changes all of them, or none."""

from __future__ import annotations

import signal
import threading
from typing import Any

try:
    # the same functions as in `signal`, without turning numbers into enums and back: that takes 3 microseconds a call
    from _signal import getsignal  # type: ignore[import-not-found]
    from _signal import signal as set_signal
except ImportError:
    from signal import getsignal
    from signal import signal as set_signal

# Ctrl-C, kill, the end of a session, time limits, what is left to the user: what commonly has a handler that raises.
NUMBERS = [
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1")
    if hasattr(signal, name)
]

_main = threading.main_thread().ident
_holding = False  # whether signals wait, in the main thread
_arrived: list[int] = []  # those that do
_in_hand = False  # whether all come through `_pass_on` already
_behind: dict[int, Any] = {}  # number -> the handler in whose place `_pass_on` stands

_Taken = list[tuple[int, Any, Any]]  # number, its handler, what was behind before


class Uninterrupted:
    """`with Uninterrupted():` a signal that arrives meanwhile is delivered right after it, to whom it belongs.

    Signals reach the main thread alone, so in any other this does nothing; nor does it inside of another (see
    `waiting`). What is not handled in Python (a SIGTERM that ends the process) is not held back.
    """

    __slots__ = ("_taken",)

    def __enter__(self) -> None:
        global _holding
        self._taken: _Taken | None = None
        if _holding or threading.get_ident() != _main:
            return
        try:
            _holding = True
            self._taken = [] if _in_hand else _take()
        except BaseException:  # from the handler of a signal that was not held back yet
            _holding = False
            raise

    def __exit__(self, *error: object) -> None:
        global _holding
        if self._taken is not None:
            _holding = False
            try:
                if self._taken:
                    _give_back(self._taken)
            finally:
                while _arrived:
                    signal.raise_signal(_arrived.pop(0))


def waiting() -> bool:
    """Whether this runs inside of an `Uninterrupted`."""
    return _holding and threading.get_ident() == _main


class SignalsInHand:
    """As long as it lasts, signals come through here, so that `Uninterrupted` need not take them each time."""

    def __enter__(self) -> None:
        global _in_hand
        self._outermost = not _in_hand and threading.get_ident() == _main
        self._taken = _take() if self._outermost else []
        _in_hand = _in_hand or self._outermost

    def __exit__(self, *error: object) -> None:
        global _in_hand
        if self._outermost:
            _in_hand = False
            _give_back(self._taken)


def _pass_on(number: int, frame: Any) -> None:
    if not _holding:
        _behind[number](number, frame)
    elif number not in _arrived:
        _arrived.append(number)


def _take() -> _Taken:
    """Stand before the handlers of all signals that have one."""
    taken: _Taken = []
    try:
        for number in NUMBERS:
            handler = getsignal(number)
            if callable(handler) and handler is not _pass_on:
                taken.append((number, handler, _behind.get(number)))
                _behind[number] = handler
                set_signal(number, _pass_on)
    except ValueError:  # the main thread of an interpreter inside of another one: signals do not come here
        return []
    except BaseException:
        _give_back(taken)
        raise
    return taken


def _give_back(taken: _Taken) -> None:
    """Every handler goes back to its place; one that raises as soon as it is there does not hinder the others."""
    raised = None
    for _ in range(len(taken) + 1):
        try:
            for number, handler, before in taken:
                if getsignal(number) is _pass_on:  # else somebody has put another one there meanwhile
                    set_signal(number, handler)
                    _behind[number] = before
            break
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised
