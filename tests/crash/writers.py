"""The writers that the matrix goes over: a row each. A new one is a new row."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import paratree as pt
from paratree.cli import main
from paratree.core.tree import Origin
from tests.verbs.held import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from paratree.core.tree import ParamTree


class Writer(NamedTuple):
    """How a checkpoint is written.

    Attributes:
        target: the name that is given to ``paratree convert``.
        options: what else is given.
        opened: the name under which it is read, if another.
        source: suffix of the source.
    """

    target: str
    options: tuple[str, ...] = ()
    opened: str = ""
    source: str = ".safetensors"

    @property
    def reads(self) -> str:
        return self.opened or self.target


WRITERS = {
    "safetensors": Writer("m.safetensors"),
    "safetensors, verified": Writer("m.safetensors", ("--verify",)),
    "safetensors from torch, cast": Writer("m.safetensors", ("--dtype", "bf16"), source=".pt"),
    "torch": Writer("m.pt"),
    "numpy": Writer("m.npz"),
    "flax": Writer("m.msgpack"),
    "mxnet": Writer("m.params"),
    "gguf": Writer("m.gguf"),
    "dcp": Writer("m", ("--format", "dcp")),
    "orbax": Writer("m", ("--format", "orbax")),
    "tensorflow": Writer("m.index"),
    "shards": Writer("m.safetensors", ("--shard-size", "16kB"), "m.safetensors.index.json"),
    "shards of torch": Writer("m.bin", ("--shard-size", "24kB", "--format", "torch"), "m.bin.index.json"),
}


def model(seed: int, *, width: int | None = None) -> ParamTree:
    """Return a small model; another seed gives other values, and another width unless one is given."""
    rng = np.random.default_rng(seed)
    width = 40 + seed if width is None else width
    shapes = {"embed.weight": (60, 40), "head.bias": (width,)}
    for layer in range(3):
        shapes |= {f"layers.{layer}.weight": (50, width), f"layers.{layer}.bias": (50,)}
    params = [held(name, rng.normal(size=shape).astype("f4"), memory=name) for name, shape in shapes.items()]
    return pt.ParamTree(params, Origin("memory", "test", {}))


def convert(source: Path, target: Path, writer: Writer, more: Iterable[str] = ()) -> Callable[[], int]:
    """Return what writes the checkpoint as a user does, and gives the exit code."""
    arguments = ["convert", str(source), str(target), "--force", *writer.options, *more]
    return lambda: main(arguments)


def quietly(action: Callable[[], object]) -> object:
    """Run an action in this process, and keep what it says to ourselves."""
    with redirect_stderr(io.StringIO()):
        return action()
