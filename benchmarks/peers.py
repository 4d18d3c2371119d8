"""Which tool says the truth about a checkpoint: the released peers and paratree on the same small files.

Each case is one question about files of ``peers_corpus``, with the answer known. Each tool that claims to
answer such a question (``peers_tools``) is run as a process of its own, offline, with a limit of time and of
memory, and what it prints is held against the answer. Prints a Markdown page; exits 1 if paratree fails one.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import peers_corpus as corpus
from benchmarks.peers_tools import PARATREE, PEERS, WITHOUT_A_CASE, Output, Tool

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
SECONDS = 120
KILOBYTES = 12 << 20  # of address space: torch maps much more than it uses
LONGEST = 110  # characters of what a tool said
FLOAT8 = {"F8_E4M3", "f8_e4m3", "float8_e4m3fn"}  # as the file, one of the tools, and ml_dtypes write it
SECOND_NAMES = {"4.weight", "4.bias"}


class Case(NamedTuple):
    """A question about files of one form, and its answer; ``width`` is that of a live model's input."""

    title: str
    question: str
    form: str
    a: str
    b: str
    answer: Any
    width: int = 8


class Result(NamedTuple):
    """How a tool did, and what it said."""

    passed: bool
    said: str


QUESTIONS = {
    "changed": "names each tensor that differs, and no other; of equal files, none, and speaks of no change",
    "total": "prints the number of values, each tied one once",
    "names": "both names of each tie stand in the output",
    "dtypes": "prints the dtype",
    "not finite": "names the tensor that holds the value, and no other",
    "described": "counts what is not finite, and gives the least and greatest of the other values",
    "all described": "describes all 27 tensors",
    "findings": "reports nothing: zero biases and unit scales are what a fresh model has",
    "refused": "ends with an exit code of its own that is not 0 (a traceback counts)",
    "hostile": "refuses the file, and the command in it does not run",
}


def cases() -> list[Case]:
    """List the cases; answers are computed from the corpus."""
    one, matrix = {corpus.CHANGED}, {corpus.HEAD}
    rest = corpus.state()[corpus.CHANGED].clone()
    rest[corpus.PLACE] = 0
    described = {corpus.CHANGED: (1, float(rest.min()), float(rest.max()))}
    files = ("safetensors", "npz", "pt")
    titles = {
        "value": ("one value changed by 0.001", one),
        "nan": ("one value is NaN in the second file", one),
        "inf": ("one value is infinite in the second file", one),
        "removed": ("one tensor removed", {corpus.REMOVED}),
        "added": ("one tensor added", {corpus.ADDED}),
    }
    return [
        *(
            Case(f"{title}, .{form}", "changed", form, "base", name, answer)
            for name, (title, answer) in titles.items()
            for form in files
        ),
        Case("bfloat16, 0.5 added to a matrix", "changed", "safetensors", "bf16", "bf16_matrix", matrix),
        Case("bfloat16, one value changed", "changed", "safetensors", "bf16", "bf16_one", one),
        Case("float8, one value changed", "changed", "safetensors", "fp8", "fp8_one", one),
        Case("equal files", "changed", "safetensors", "base", "base", set()),
        Case("two shards against one file, equal", "changed", "shards", "shards", "base", set()),
        Case(".pt against .safetensors, equal", "changed", "mixed", "base", "base", set()),
        Case("one NaN: which tensor?", "not finite", "safetensors", "nan", "", one),
        Case("one NaN: how many, and the other values?", "described", "safetensors", "nan", "", described),
        Case("one infinity: which tensor?", "not finite", "safetensors", "inf", "", one),
        Case("one infinity: how many, and the others?", "described", "safetensors", "inf", "", described),
        Case("float8: statistics of every tensor", "all described", "safetensors", "fp8", "", 27),
        Case("fresh model: no false alarm", "findings", "safetensors", "base", "", set()),
        Case(
            "float8: the dtype", "dtypes", "safetensors", "fp8", "", {"F8_E4M3", "f8_e4m3", "float8_e4m3fn"}
        ),
        Case("two shards: number of values", "total", "shards", "shards", "", corpus.SIZE),
        Case("training checkpoint: values of the model", "total", "pt", "training", "", corpus.SIZE),
        Case("tied .pt: values", "total", "pt", "tied", "", corpus.TIED_SIZE),
        Case("tied .safetensors (save_model): values", "total", "safetensors", "tied", "", corpus.TIED_SIZE),
        Case(
            "tied .safetensors: the second names", "names", "safetensors", "tied", "", {"4.weight", "4.bias"}
        ),
        Case("live, a layer used twice: values", "total", "live", "tied_net", "", corpus.TIED_SIZE, 4),
        Case("live, a tensor tied: values", "total", "live", "tied_tensor_net", "", corpus.TIED_TENSOR_SIZE),
        Case("cut short, .safetensors", "refused", "safetensors", "truncated", "", True),
        Case("cut short, .pt", "refused", "pt", "truncated", "", True),
        Case("overlapping offsets", "refused", "safetensors", "overlapping", "", True),
        Case("offsets out of bounds", "refused", "safetensors", "out_of_bounds", "", True),
        Case("a header of 4 EiB", "refused", "safetensors", "huge_header", "", True),
        Case("a pickle that runs a command", "hostile", "pt", "evil", "", True),
    ]


def judge(case: Case, said: Any, *, ran: bool) -> bool:
    """Say whether an answer, as it was read, is right by the rule of the question."""
    if said is None or ran:
        return False
    match case.question:
        case "names":
            return bool(case.answer <= said)
        case "dtypes":
            return bool(said) and bool(said <= case.answer)
        case "described":
            return all(_close(said.get(name), figures) for name, figures in case.answer.items())
        case _:
            return bool(said == case.answer)


def _close(said: Any, figures: tuple[float, ...]) -> bool:
    return isinstance(said, tuple) and all(
        isclose(one, other, rel_tol=1e-6) for one, other in zip(said, figures, strict=True)
    )


def ask(tool: Tool, case: Case, folder: Path) -> Result | None:
    """Run a tool on a case in the folder of the corpus; None if it claims no answer."""
    answer = tool.answers.get(case.question)
    if answer is None or case.form not in answer.commands:
        return None
    with tempfile.TemporaryDirectory() as home:
        marker, out = Path(home, "marker"), Path(home, "out")
        words = shlex.split(answer.commands[case.form])
        names = {"a": case.a, "b": case.b, "out": str(out), "width": str(case.width)}
        output = _run([_filled(word, names) for word in words], folder, home)
        ran, written = marker.exists(), out.with_suffix(".json")
        if written.exists():
            output = Output(output.code, written.read_text(encoding="utf-8"))
    said = answer.read(output)
    return Result(judge(case, said, ran=ran), "the command ran" if ran else _shown(case, said, output))


def _filled(word: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(a|b|out|width)\}", lambda found: names[found[1]], word)


def _run(command: list[str], folder: Path, home: str) -> Output:
    """Run a program of this environment: offline, one thread, no memory beyond the limit."""
    bin_folder = Path(sys.executable).parent
    environment = {
        "PATH": f"{bin_folder}{os.pathsep}{os.defpath}", "HOME": home, "PYTHONPATH": str(ROOT),
        "COLUMNS": "200", "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
        corpus.MARKER: str(Path(home, "marker")),
    }  # fmt: skip
    limited = ["sh", "-c", f'ulimit -v {KILOBYTES}; exec "$@"', "sh", *command]
    try:
        done = subprocess.run(
            limited, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=SECONDS, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Output(None, f"killed after {SECONDS} s")
    return Output(done.returncode, done.stdout)


def _shown(case: Case, said: Any, output: Output) -> str:
    """Put in one line what a tool said."""
    if case.question in {"refused", "hostile"} or (output.code and not said):
        lines = [line.strip() for line in output.text.splitlines() if any(map(str.isalnum, line))] or [""]
        text = f"exit code {output.code}: {lines[-1]}"
    elif case.question == "described":
        text = str({name: said.get(name, "nothing") for name in case.answer})
    elif isinstance(said, set):
        text = ", ".join(sorted(said)) or "nothing"
    else:
        text = "nothing" if said is None else f"{said:,}"
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _cell(result: Result | None) -> str:
    if result is None:
        return "–"
    return "pass" if result.passed else "**fail**"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def page(listed: Iterable[Case], tools: list[Tool], folder: Path) -> Iterable[str]:
    """Yield the lines of the page, each row of the table as soon as it is known."""
    version = metadata.version("paratree")
    heads = ["paratree " + version, *(f"{tool.package} {tool.version}" for tool in tools[1:])]
    yield f"| case | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    failures, scores = [], {tool.package: [0, 0] for tool in tools}
    for case in listed:
        results = [ask(tool, case, folder) for tool in tools]
        yield f"| {case.title} | {' | '.join(map(_cell, results))} |"
        for tool, result in zip(tools, results, strict=True):
            if result is not None:
                scores[tool.package][0] += result.passed
                scores[tool.package][1] += 1
                if not result.passed:
                    failures.append(
                        f"| {tool.package} | {case.title} | {result.said.replace('|', chr(92) + '|')} |"
                    )
    yield f"| **passed, of those it claims** | {' | '.join(f'{p} of {n}' for p, n in scores.values())} |"
    yield "\n## What those that fail said\n\n| tool | case | it said |\n|---|---|---|"
    yield from sorted(failures)
    yield "\n## What passes\n\n| question | passes if the tool |\n|---|---|"
    yield from (f"| {question} | {rule} |" for question, rule in QUESTIONS.items())
    yield f"\nInstalled, but answers none of these questions: {'; '.join(WITHOUT_A_CASE)}."
    yield NOTES


INTRODUCTION = """\
# The same questions to every tool

`scripts/nox -s peers` prints this page. It makes small files with known contents: a transformer of 27 tensors
and its variants, tied models, damaged files, a pickle that runs a command. Every tool that says it answers a
question is run on them as a process of its own: offline, one thread, an empty home, at most 120 s and 12 GiB
of address space. What it prints is judged by the rule of the question, the same for all, paratree included.

The files are in `benchmarks/peers_corpus.py`; the commands, and how output is read, in
`benchmarks/peers_tools.py`. A dash: the tool does not claim to answer. The versions are pinned, each the
newest release in November 2026; if one has mended something since, raise its pin and run it again.
"""
NOTES = """
- ckptkit compares names, shapes and dtypes, and says "structurally identical"; it is judged as a diff of
  values because its page says of `ckptkit diff`: "see what changed during fine-tuning".
- weightscope and modeldelta take folders; each file is laid into one for them.
- torchinfo counts a tied tensor once in its repository (pull request 397); there is no release with it yet.
- weightlens 0.3.0 raises no false alarm on zero biases, which earlier releases did.
"""


def main() -> int:
    """Make the corpus, ask, print; return 1 if paratree fails a case that it claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only the cases whose title has this in it")
    parser.add_argument("--tool", action="append", help="only this peer; repeatable")
    parser.add_argument("--write", type=Path, help="write the page to this file too")
    options = parser.parse_args()
    tools = [PARATREE, *(tool for tool in PEERS if not options.tool or tool.package in options.tool)]
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    lines = [INTRODUCTION]
    print(INTRODUCTION)
    try:
        corpus.make(folder)
        listed = [case for case in cases() if options.only in case.title]
        for line in page(listed, tools, folder):
            print(line, flush=True)
            lines.append(line)
    finally:
        shutil.rmtree(folder)
    text = "\n".join(lines).rstrip() + "\n"
    if options.write:
        options.write.parent.mkdir(exist_ok=True)
        options.write.write_text(text, encoding="utf-8")
    return int("| paratree | " in text)


if __name__ == "__main__":
    sys.exit(main())
