"""How long it takes to list a checkpoint, against a bare interpreter and against the peers.

Whole processes, each side in turn (A B A B ...), medians, judged as ratios within one run. Prints a Markdown
table; exits 1 if a bar is missed. Only the standard library is imported here: a process that is started
counts the memory of the one that started it.
"""

from __future__ import annotations

import argparse
import os
import platform
import pty
import statistics
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
PARATREE = str(Path(sys.executable).with_name("paratree"))
FOLDER = HERE.parent / ".cache" / "bench"

TORCH_LISTING = """
import sys, torch
for name, tensor in torch.load(sys.argv[1], mmap=True, weights_only=True).items():
    print(name, tuple(tensor.shape), tensor.dtype)
"""
SAFE_OPEN = """
import sys
from safetensors import safe_open
with safe_open(sys.argv[1], "numpy") as file:
    for name in file.keys():
        part = file.get_slice(name)
        print(name, part.get_shape(), part.get_dtype())
"""
H5PY_LISTING = """
import sys, zipfile, h5py
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open("model.weights.h5") as member:
    h5py.File(member).visititems(lambda name, item: print(name, getattr(item, "shape", "")))
"""


class Run(NamedTuple):
    """One process: wall time in seconds, peak resident memory in MB."""

    seconds: float
    megabytes: float


class Job(NamedTuple):
    """What is compared, how it is judged, and the bar, if there is one."""

    title: str
    ours: list[str]
    other: list[str]
    measure: Measure
    bar: float | None = None
    terminal: bool = False


class Measure(NamedTuple):
    """A figure made of two medians, how it is written, and which way it should go."""

    figure: Callable[[Run, Run], float]
    written: str
    least: bool


SLOWER = Measure(lambda ours, other: ours.seconds / other.seconds, "{:.3g}x", least=False)
FASTER = Measure(lambda ours, other: other.seconds / ours.seconds, "{:.3g}x faster", least=True)
ADDED = Measure(lambda ours, other: (ours.seconds - other.seconds) * 1e3, "{:+.0f} ms", least=False)
MEMORY = Measure(lambda ours, _: ours.megabytes, "{:.0f} MB", least=False)


def run(command: list[str], *, terminal: bool = False, codes: tuple[int, ...] = (0,)) -> Run:
    """Run a command to its end, its output read through a pipe or a pseudo-terminal.

    Any exit code but ``codes`` ends the benchmark.
    """
    environment = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    environment["TERM"] = "xterm-256color"
    reading, writing = pty.openpty() if terminal else os.pipe()
    started = time.perf_counter()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, env=environment)
    os.close(writing)
    drain = threading.Thread(target=_drain, args=(reading,))
    drain.start()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    drain.join()
    os.close(reading)
    if child.returncode not in codes:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    return Run(seconds, usage.ru_maxrss / 1024)


def _drain(reading: int) -> None:
    try:
        while os.read(reading, 1 << 16):
            pass
    except OSError:
        return  # how Linux says that nobody holds the other end of a pseudo-terminal any more


def medians(commands: list[list[str]], rounds: int, *, terminal: bool = False) -> list[Run]:
    """Run the commands in turn, once to warm up and then ``rounds`` times; the first may be on a terminal."""
    results: list[list[Run]] = [[] for _ in commands]
    for count in range(rounds + 1):
        for i, command in enumerate(commands):
            result = run(command, terminal=terminal and i == 0)
            if count:
                results[i].append(result)
    return [Run(*(statistics.median(column) for column in zip(*one, strict=True))) for one in results]


def made(name: str, folder: Path) -> str:
    """Return the path of a file to list, made if it is not there."""
    path = folder / name
    if not path.exists():
        print(f"making {path}", file=sys.stderr)
        subprocess.run([sys.executable, HERE / "makers.py", path], check=True, stdout=subprocess.DEVNULL)
    return str(path)


def jobs(folder: Path) -> list[Job]:
    """Make the files and list the jobs."""
    small, many = made("llama.safetensors", folder), made("many.safetensors", folder)
    big, keras = made("llama.pt", folder), made("dense.keras", folder)

    def show(path: str, *options: str) -> list[str]:
        return [PARATREE, "show", path, *options]

    def python(code: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", code, *arguments]

    bare, load = python("pass"), python(TORCH_LISTING, big)
    zipped = python(H5PY_LISTING, keras)
    return [
        Job("`show`, 201 tensors, to a pipe, against `python -c pass`", show(small), bare, SLOWER, 5),
        Job("the same, on a terminal", show(small), bare, SLOWER, 10, terminal=True),
        Job(
            "`show --json`, 10,000 tensors, against `python -c pass`", show(many, "--json"), bare, SLOWER, 12
        ),
        Job("`show`, 2.2 GB .pt, against `torch.load(mmap, weights_only)`", show(big), load, FASTER, 20),
        Job("the same, peak memory", show(big), bare, MEMORY, 40),
        Job("`import paratree`, over `python -c pass`", python("import paratree"), bare, ADDED, 40),
        Job("`show`, 201 tensors, against `safe_open`", show(small), python(SAFE_OPEN, small), FASTER),
        Job("`show`, 88 MB .keras, against zipfile + h5py", show(keras), zipped, FASTER),
    ]


def measure(job: Job, rounds: int) -> tuple[str, bool]:
    """Run a job; return its line of the table, and whether it keeps its bar."""
    ours, other = medians([job.ours, job.other], rounds, terminal=job.terminal)
    figure = job.measure.figure(ours, other)
    sides = " | ".join(f"{side.seconds * 1e3:.0f} ms, {side.megabytes:.0f} MB" for side in (ours, other))
    line = f"| {job.title} | {sides} | {job.measure.written.format(figure)} |"
    if job.bar is None:
        return f"{line} | |", True
    passed = figure >= job.bar if job.measure.least else figure <= job.bar
    bar = ("≥ " if job.measure.least else "≤ ") + job.measure.written.format(job.bar).lstrip("+")
    return f"{line} {bar} | {'pass' if passed else '**MISSED**'} |", passed


def machine() -> str:
    """Say where this is measured."""
    python = ".".join(map(str, sys.version_info[:3]))
    versions = (f"{name} {metadata.version(name)}" for name in ("paratree", "torch", "safetensors", "keras"))
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    return f"{platform.machine()}, {os.cpu_count()} cores, {load}, Python {python}, {', '.join(versions)}"


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="runs of each side (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are made")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    listed = jobs(options.folder)
    print(f"{machine()}; medians of {options.rounds}, in turn\n")
    print("| job | paratree | the other | measured | bar | |\n|---|---|---|---|---|---|", flush=True)
    kept = True
    for job in listed:
        line, passed = measure(job, options.rounds)
        print(line, flush=True)
        kept &= passed
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
