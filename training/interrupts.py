"""Interrupts that wait: what changes many numbers changes all of them, or none."""

from __future__ import annotations

import signal
import threading
import weakref
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
_owners = 0  # objects for whose sake the handlers stay where they are


class InFront:
    """A handler that stands in front of another: it hands a signal on, at once or when what is being changed is whole.

    behind : the handler that was there before
    """

    def __init__(self, behind: Any) -> None:
        self.behind = behind

    def __call__(self, number: int, frame: Any) -> Any:
        if not _holding:
            return self.behind(number, frame)
        if number not in _arrived:
            _arrived.append(number)
        return None

    def __repr__(self) -> str:
        return f"<in front of {self.behind!r}>"


class Uninterrupted:
    """`with Uninterrupted():` a signal that arrives meanwhile is delivered right after it, to whom it belongs.

    Signals reach the main thread alone, so in any other this does nothing; nor does it inside of another (see
    `waiting`). What is not handled in Python (a SIGTERM that ends the process) is not held back.

    For that a handler stands in front of those that there are. To change one is a call of the system, which costs a
    small step a twentieth of its time; so it stays there as long as one of those objects lives that `stay_for` names.
    """

    __slots__ = ("_outermost",)

    def __enter__(self) -> None:
        global _holding
        self._outermost = not _holding and threading.get_ident() == _main
        if self._outermost:
            try:
                _holding = True
                _stand_in_front()
            except BaseException:  # from the handler of a signal that was not held back yet
                _holding = False
                raise

    def __exit__(self, *error: object) -> None:
        global _holding
        if self._outermost:
            _holding = False
            try:
                if not _owners:
                    _step_aside()
            finally:
                while _arrived:
                    signal.raise_signal(_arrived.pop(0))


def waiting() -> bool:
    """Whether this runs inside of an `Uninterrupted`."""
    return _holding and threading.get_ident() == _main


def stay_for(owner: object) -> None:
    """Leave the handlers where `Uninterrupted` puts them, for as long as this object lives."""
    global _owners
    _owners += 1
    weakref.finalize(owner, _one_less)


def _one_less() -> None:
    global _owners
    _owners -= 1
    if not _owners and not _holding and threading.get_ident() == _main:
        _step_aside()


def _stand_in_front() -> None:
    try:
        for number in NUMBERS:
            handler = getsignal(number)
            if type(handler) is not InFront and callable(handler):
                set_signal(number, InFront(handler))
    except ValueError:  # the main thread of an interpreter inside of another one: signals do not come here
        pass


def _step_aside() -> None:
    """Every handler goes back to its place; one that raises as soon as it is there does not hinder the others."""
    raised = None
    for number in NUMBERS:
        try:
            handler = getsignal(number)
            if type(handler) is InFront:
                set_signal(number, handler.behind)
        except ValueError:  # as above
            return
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised
