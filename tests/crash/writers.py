"""The writers that the matrix goes over: a row each. A new one is a new row."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import numpy as np

import paratree as pt
from paratree.cli import main
from paratree.core.tree import Origin
from paratree.files import _syncing
from tests.attacks import cases_onnx as onnx
from tests.verbs.held import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from paratree.core.tree import ParamTree

WIDTH = 40


class Writer(NamedTuple):
    """How a checkpoint is written.

    Attributes:
        target: the name that is given to ``paratree convert``.
        options: what else is given.
        opened: the name under which it is read, if another.
        source: suffix of the source.
        like: of a writer of copies, what makes the file to copy, of a model at a path.
        many: whether its files count as so many that they are flushed in one call.
    """

    target: str
    options: tuple[str, ...] = ()
    opened: str = ""
    source: str = ".safetensors"
    like: Callable[[Path, ParamTree], None] | None = None
    many: bool = False

    @property
    def reads(self) -> str:
        return self.opened or self.target


def _onnx(path: Path, tree: ParamTree) -> None:
    """Write a graph that holds a model's parameters."""
    parts = (
        onnx.tensor(onnx.dims(*param.shape), data=onnx.held(9, param.value.tobytes()), name=name.encode())
        for name, param in tree.items()
    )
    path.write_bytes(onnx.model(*(onnx.held(5, part) for part in parts)))


def _keras(path: Path, tree: ParamTree) -> None:
    """Write HDF5 with a dataset for each parameter."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, param in tree.items():
            file.create_dataset(name, data=param.value)


WRITERS = {
    "safetensors": Writer("m.safetensors"),
    "safetensors, verified": Writer("m.safetensors", ("--verify",)),
    "safetensors from torch, cast": Writer("m.safetensors", ("--dtype", "bf16"), source=".pt"),
    "torch": Writer("m.pt"),
    "numpy": Writer("m.npz"),
    "flax": Writer("m.msgpack"),
    "mxnet": Writer("m.params"),
    "gguf": Writer("m.gguf"),
    "onnx, a copy": Writer("m.onnx", like=_onnx),
    "keras, a copy": Writer("m.h5", like=_keras),
    "dcp": Writer("m", ("--format", "dcp")),
    "orbax": Writer("m", ("--format", "orbax")),
    "orbax, flushed in one call": Writer("m", ("--format", "orbax"), many=True),
    "tensorflow": Writer("m.index"),
    "shards": Writer("m.safetensors", ("--shard-size", "16kB"), "m.safetensors.index.json"),
    "shards of torch": Writer("m.bin", ("--shard-size", "24kB", "--format", "torch"), "m.bin.index.json"),
}


def source_of(writer: Writer, seed: int, path: Path) -> Path:
    """Write what is converted: another seed gives another content; a copy is of one layout."""
    pt.save(model(seed, width=None if writer.like is None else WIDTH), path)
    return path


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
    if writer.like is not None:
        like = source.with_name(f"like-{writer.target}")
        writer.like(like, model(0, width=WIDTH))
        arguments += ["--like", str(like)]
    return partial(_with_many, arguments) if writer.many else partial(main, arguments)


def _with_many(arguments: list[str]) -> int:
    with mock.patch.object(_syncing, "_MANY", 1):
        return main(arguments)


def succeed(action: Callable[[], object]) -> None:
    """Run a save in this process; what it says is shown only if it fails."""
    said = io.StringIO()
    with redirect_stderr(said):
        code = action()
    assert code == 0, said.getvalue()
