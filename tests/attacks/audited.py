"""Run the command line under an audit hook: whatever a hostile file could make happen ends the process.

Refused from the moment the file is opened: running programs, sockets, changing files, compiling text,
unpickling, and importing anything but paratree,
its dependencies and the parts of the standard library they use.
"""

import os
import sys

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


def main() -> int:
    """Import what every run needs, set the hook, run the command."""
    arguments = sys.argv[1:]
    from importlib.metadata import entry_points

    entry_points(group="paratree.formats")  # compiles its own namedtuples on first use
    import paratree.cli
    import paratree.registry  # so that the idle process has what every run has

    libraries = [argument.removeprefix("--with=") for argument in arguments if argument.startswith("--with=")]
    for name in libraries:
        __import__(name)
    arguments = arguments[len(libraries) :]
    if not arguments:
        return 0
    sys.addaudithook(_hook)
    return paratree.cli.main(arguments)


def _report(descriptor: int) -> None:
    """Tell the most memory that this program took; what wait4 says would be that of its parent, if larger."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 -- pathlib is memory too
        line = next(line for line in status if line.startswith("VmHWM"))
    os.write(descriptor, line.split()[1].encode())


if __name__ == "__main__":
    pipe = int(sys.argv.pop(1))
    try:
        code = main()
    finally:
        _report(pipe)
    sys.exit(code)
