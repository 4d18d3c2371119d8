"""Run the command line under an audit hook: whatever a hostile file could make happen ends the process.

Each run is a fork of one process, which has imported what every run needs and nothing more.

Refused from the moment the file is opened: running programs, sockets, changing files, compiling text,
unpickling, and importing anything but paratree,
its dependencies and the parts of the standard library they use.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink", "subprocess.Popen", "pty.spawn",
    "socket.",
    "urllib.", "ftplib.", "smtplib.", "webbrowser.", "pickle.find_class", "shutil.", "ctypes.call_function",
)  # fmt: skip
_NEVER_IMPORTED = (
    "subprocess",
    "pty",
    "webbrowser",
    "antigravity",
    "pickle",
    "torch",
    "evil",
    "runpy",
    "timeit",
)


def _hook(event: str, args: tuple) -> None:
    bad = event.startswith(_EVENTS)
    if event == "open":
        bad = isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")
    elif event == "compile":
        bad = args[0] is not None and str(args[1]).startswith("<")
    elif event == "import":
        bad = args[0].partition(".")[0] in _NEVER_IMPORTED
    if bad:
        os.write(2, f"AUDIT: {event} {args!r}\n".encode())
        os._exit(99)


def main(libraries: list[str]) -> None:
    """Import what every run needs; then for each line of input run a command in a fork of this process."""
    from importlib.metadata import entry_points

    entry_points(group="paratree.formats")  # compiles its own namedtuples on first use
    import paratree.cli
    import paratree.registry  # so that the idle process has what every run has

    for name in libraries:
        __import__(name)
    for line in sys.stdin:
        folder, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(_run(paratree.cli.main, folder, arguments)) + "\n")
        sys.stdout.flush()


def _run(command: Callable[[list[str]], int], folder: str, arguments: list[str]) -> dict[str, object]:
    out, err, peak = (os.memfd_create(name) for name in ("out", "err", "peak"))
    child = os.fork()
    if not child:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        _end(command, arguments, peak)
    _, status, usage = os.wait4(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": _text(out),
        "err": _text(err),
        "memory": int(_text(peak) or "-1") * 1024,
        "seconds": usage.ru_utime + usage.ru_stime,
    }


def _end(command: Callable[[list[str]], int], arguments: list[str], peak: int) -> NoReturn:
    """Run the command under the hook and end this process, whatever happens."""
    code = 1
    try:
        if arguments:
            sys.addaudithook(_hook)
            code = command(arguments)
        else:
            code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 -- the one place from which nothing may come back
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _report(peak)
        os._exit(code)


def _report(descriptor: int) -> None:
    """Tell the most memory that this process took; what wait4 says would be that of its parent, if larger."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 -- pathlib is memory too
        line = next(line for line in status if line.startswith("VmHWM"))
    os.write(descriptor, line.split()[1].encode())


def _text(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        return stream.read()


if __name__ == "__main__":
    main(sys.argv[1:])
