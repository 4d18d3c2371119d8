"""The command line: parse, run one verb, render, exit.

Exit codes are those of diff(1): 0 done, same, passed; 1 nothing found, different, failed; 2 trouble. stdout
is data, stderr is messages.

Only what a command needs is imported: ``show`` into a pipe takes but a few times the start of Python itself.
"""

from __future__ import annotations

import codecs
import errno
import gc
import os
import re
import sys

import paratree
from paratree.cli.console import CLOSED_PIPE, INTERRUPTED, NOTHING, TROUBLE, complain
from paratree.cli.parsing import parse
from paratree.core.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_UPS = ("show", "get", "stats", "spectrum")  # commands of which 1 says that nothing was found
_ASCII = str.maketrans({  # for a stdout that has no such signs
    "×": "x", "·": "-", "–": "-", "…": "...", "⛓": "=", "Δ": "d", "→": "->", "←": "<-", "≤": "<=", "±": "+-",
    "✗": "x",
})  # fmt: skip
_BARS = re.compile(r"(?:(?<![^\s▁-█])|(?<=\x1b\[36m))[▁-█]+(?![^\s▁-█\x1b])")  # not what is a part of a name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments after the program's name; those of the process by default.

    Returns:
        0 done, same, passed; 1 nothing found, different, failed; 2 trouble; 130 interrupted; 141 the
        reader of stdout has gone.
    """
    if argv is None:  # the process ends soon: looking for garbage took a fifth of listing 10,000 tensors
        gc.disable()
    arguments = sys.argv[1:] if argv is None else list(argv)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        codecs.register_error("paratree", _in_ascii)
        reconfigure(errors="paratree")
    try:
        options = parse(arguments)
        status: int = options.run(options)
        print(end="", flush=True)
        if argv is None:
            gc.freeze()
    except paratree.NoSuchParamError as error:
        return complain(str(error), arguments, NOTHING if options.command in _LOOK_UPS else TROUBLE)
    except (paratree.ParatreeError, IndexError) as error:
        return complain(str(error), arguments)
    except BrokenPipeError:
        _discard_output()
        return CLOSED_PIPE
    except OSError as error:
        _discard_output()
        return complain(_of_system(error), arguments)
    except MemoryError:
        return complain("the memory is not enough; 'paratree get --slice' reads a part", arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- Python would exit with 1, which says "different"
        return complain(_of_bug(error), arguments)
    return status


def _of_bug(error: Exception) -> str:
    """Return what is said of an exception that nobody has foreseen."""
    fact = printable(f"{type(error).__name__}: {error}")
    return f"{fact}; this is a bug of paratree: please report the command and what it prints with --debug"


def _of_system(error: OSError) -> str:
    """Return what the system refused, where, and what to do; what has no name is stdout if it is full."""
    place = "" if error.filename is None else f"{printable(str(error.filename))}: "
    if error.errno == errno.ENOSPC:
        return f"{place or 'stdout: '}{error.strerror}; make room, or write elsewhere"
    if isinstance(error, PermissionError):
        return f"{place}{error.strerror}; 'ls -ld' shows who may use it and its folder"
    return f"{place}{error.strerror or error}"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Write what stdout cannot encode: our own signs in ASCII, no bars, everything else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if bars := _BARS.match(error.object, error.start):
        return "", min(bars.end(), error.end)
    found = error.object[error.start : error.end]
    return found.translate(_ASCII).encode("ascii", "backslashreplace").decode(), error.end


def _discard_output() -> None:
    """Point stdout to nowhere, so that Python's last flush has nothing to complain about."""
    if (output := sys.__stdout__) is not None and output is sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
