"""A writer in a process of its own: forked, so that what it imports is there and a run takes milliseconds."""

from __future__ import annotations

import io
import os
import socket
import sys
import traceback
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Action = Callable[[], object]


class Ended(NamedTuple):
    """How a process ended: exit code, or the signal as a negative number; and what it wrote to stderr."""

    code: int
    stderr: str

    @property
    def was_killed(self) -> bool:
        return self.code < 0


class Child:
    """A process that waits until it is let go."""

    def __init__(self, action: Action) -> None:
        self._said, saying = socket.socketpair()
        waiting, self._go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._go)
            _become(action, waiting, saying)
        os.close(waiting)
        saying.close()

    def go(self) -> None:
        """Let it run."""
        os.close(self._go)

    def wait(self) -> Ended:
        """Wait for its end."""
        with self._said, self._said.makefile("rb") as said:
            stderr = said.read().decode(errors="replace")
        return Ended(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), stderr)


def run(action: Action) -> Ended:
    """Run an action in a process of its own."""
    child = Child(action)
    child.go()
    return child.wait()


def _become(action: Action, waiting: int, saying: socket.socket) -> None:
    """Run the action and end this process with what it returns; what escapes from it is a traceback and 1.

    What it says goes through a socket: no call that a full disk lets fail.
    """
    code: object = 1
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        os.read(waiting, 1)
        code = action()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 -- the process ends here, as Python would end it
        traceback.print_exc()
    finally:
        saying.sendall(sys.stderr.getvalue().encode(errors="replace"))
        os._exit(code if isinstance(code, int) else 1)
