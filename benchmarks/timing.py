"""Rows of the benchmarks that read values: what is run in turn, what is made of the times, and the bar."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.listing import FOLDER, Run, machine, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Side = Callable[[], object] | list[str]

HEAD = "| job | paratree | the other | measured | bar | |\n|---|---|---|---|---|---|"
TORCH_USER = """
import sys, torch
torch.set_num_threads(1)

def described(tensor):
    nan, inf = torch.isnan(tensor).sum().item(), torch.isinf(tensor).sum().item()
    values = tensor.float()
    sample = values.flatten()[:: max(1, values.numel() // 100_000)]
    figures = values.min(), values.max(), values.mean(), values.std(), values.abs().mean(), values.norm()
    quantiles = sample.quantile(torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99]))
    histogram = torch.histc(values.abs().clamp_min(1e-30).log2().nan_to_num(0, 0, 0), 64)
    return nan, inf, [figure.item() for figure in figures], quantiles.tolist(), histogram.tolist()
"""
TORCH_PAIR = """
import sys, torch
torch.set_num_threads(1)

def compared(a, b):
    if torch.equal(a, b):
        return None
    x, y = a.float(), b.float()
    change = (x - y).abs()
    cosine = torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0)
    figures = change.max(), change.mean(), change.norm() / x.norm(), cosine
    return (a != b).sum().item(), change.argmax().item(), [figure.item() for figure in figures]
"""


class Row(NamedTuple):
    """A job, what it is held against, and the bar, if any: times slower at most, or times faster at least."""

    title: str
    ours: Side
    other: Side
    bar: float | None
    faster: bool = False
    before: Callable[[], object] | None = None  # called before each side, not timed


def timed(side: Side) -> Run:
    """Run a process, or a function, of which the time of the processor is taken."""
    if isinstance(side, list):
        return run(side, codes=(0, 1))
    started = time.process_time()
    side()
    return Run(time.process_time() - started, 0)


def measured(row: Row, rounds: int) -> tuple[str, bool, Run]:
    """Run both sides in turn, once to warm up; return the line, if the bar is kept, and our median."""
    pairs = [(_prepared(row, row.ours), _prepared(row, row.other)) for _ in range(rounds + 1)][1:]
    ours, other = (_median([pair[side] for pair in pairs]) for side in (0, 1))
    ratio = other.seconds / ours.seconds if row.faster else ours.seconds / other.seconds
    text, bar = ("{:.3g}x faster", "≥ {:g}x") if row.faster else ("{:.3g}x", "≤ {:g}x")
    bar = "" if row.bar is None else bar.format(row.bar)
    times = f"{ours.seconds * 1e3:.1f} ms | {other.seconds * 1e3:.1f} ms"
    passed = row.bar is None or (ratio >= row.bar if row.faster else ratio <= row.bar)
    return line(row.title, times, text.format(ratio), bar, passed=passed), passed, ours


def _prepared(row: Row, side: Side) -> Run:
    if row.before is not None:
        row.before()
    return timed(side)


def _median(runs: list[Run]) -> Run:
    return Run(*(statistics.median(column) for column in zip(*runs, strict=True)))


def line(title: str, times: str, figure: str, bar: str, *, passed: bool) -> str:
    """Return a line of the table."""
    verdict = "" if not bar else "pass" if passed else "**MISSED**"
    return f"| {title} | {times} | {figure} | {bar} | {verdict} |"


def arguments(description: str) -> argparse.Namespace:
    """Return the options of a benchmark, its folder made."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (default: %(default)s)")
    parser.add_argument("--size", type=float, default=2200, help="megabytes of a file (default: %(default)s)")
    parser.add_argument(
        "--memory", type=float, default=1000, help="megabytes in memory (default: %(default)s)"
    )
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; files of {options.size:g} MB, {options.memory:g} MB in memory; medians of ", end="")
    print(f"{options.rounds}, in turn; torch on one thread\n\n{HEAD}", flush=True)
    return options


def shown(rows: Iterable[Row], rounds: int, memory: dict[str, float] | None = None) -> bool:
    """Measure and print rows; of those whose title is in ``memory``, the peak of the process, too."""
    kept = True
    for row in rows:
        text, passed, ours = measured(row, rounds)
        print(text, flush=True)
        kept &= passed
        if memory and row.title in memory:
            most = memory[row.title]
            passed = ours.megabytes <= most
            text = line(
                "the same, peak memory", "| ", f"{ours.megabytes:.0f} MB", f"≤ {most:g} MB", passed=passed
            )
            print(text, flush=True)
            kept &= passed
    return kept


def in_own_process(module: str, *words: object) -> bool:
    """Run the part of a benchmark that holds values in its memory; return whether its bars are kept."""
    return subprocess.run([sys.executable, "-m", module, *map(str, words)], check=False).returncode == 0
