"""Does ``paratree verify`` notice every flipped bit? ``python -m benchmarks.flips`` flips 10,000.

A checkpoint of every dtype is written in every format that keeps the values as they are. Bits of its values,
drawn uniformly, are flipped in the file, one at a time; the file is verified with the flip, which must be
noticed, named, and placed in a range that holds it, and again without, which must pass. Exits 1 if not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import paratree as pt
from paratree.core.array import Storage
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.registry import known_formats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paratree.verbs.manifest import Manifest

SUFFIXES = {  # module of a format -> suffix of a file that holds the values as they are, one after the other
    "safetensors": ".safetensors", "torch": ".pt", "numpy": ".npz", "flax": ".msgpack", "mxnet": ".params",
    "gguf": ".gguf",
}  # fmt: skip
_SHAPES = ((24, 32), (48,), (7, 5, 3))


class Flipped(NamedTuple):
    """What came of flipping bits of a file.

    Attributes:
        flips: number of bits that were flipped, one at a time.
        missed: bytes of the file of which a flipped bit was not noticed, or told to be elsewhere.
        alarms: how often the file failed with no bit flipped.
    """

    flips: int
    missed: list[int]
    alarms: int


class _Held:
    problem = None

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype.name
        self.storage = Storage(id(values))

    def read(self, index: object = ...) -> np.ndarray:
        return np.asarray(self.values[index])


def checkpoint(seed: int = 0) -> dict[str, np.ndarray]:
    """Return random arrays of every dtype of whole bytes, bools 0 and 1, and one without values."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for dtype in (name for name, bits in BITS.items() if bits >= 8):
        for place, shape in enumerate(_SHAPES):
            raw = generator.integers(0, 256, (*shape, BITS[dtype] // 8), np.uint8)
            raw = raw & 1 if dtype == "bool" else raw
            arrays[f"layers.{place}.{dtype}"] = raw.view(numpy_dtype(dtype)).reshape(shape)
    arrays["nothing"] = np.empty((0, 3), np.float32)
    return arrays


def written(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> Path:
    """Write what a format can hold of the arrays."""
    held = {key: value for key, value in arrays.items() if value.dtype.name in known_formats()[name].WRITES}
    path = folder / f"model{SUFFIXES[name]}"
    tree = ParamTree([Param(key, _Held(value)) for key, value in held.items()], Origin("memory", "benchmark"))
    pt.save(tree, path)
    return path


def flip(path: Path, manifest: Manifest, arrays: dict[str, np.ndarray], flips: int, seed: int = 0) -> Flipped:
    """Flip bits of the values in a file, one at a time, and verify it with each and without."""
    spans = list(_spans(path.read_bytes(), {name: arrays[name] for name in manifest.params}))
    lengths = np.array([length for _, _, length in spans])
    generator = np.random.default_rng(seed)
    missed, alarms = [], 0
    for place in generator.integers(0, lengths.sum() * 8, flips):
        byte, bit = divmod(int(place), 8)
        span = int(np.searchsorted(np.cumsum(lengths), byte, "right"))
        inside = byte - int(lengths[:span].sum())
        name, start, _ = spans[span]
        _turn(path, start + inside, bit)
        if not _is_told(pt.verify(path, manifest, threads=1), name, inside, start + inside):
            missed.append(start + inside)
        _turn(path, start + inside, bit)
        alarms += not pt.verify(path, manifest, threads=1)
    return Flipped(flips, missed, alarms)


def _spans(raw: bytes, arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, int, int]]:
    """Yield where the bytes of each array are in a file, found by looking for them."""
    for name, values in arrays.items():
        data = values.tobytes()
        if data:
            start = raw.index(data)
            assert raw.find(data, start + 1) < 0, f"{name} is in the file twice"
            yield name, start, len(data)


def _turn(path: Path, byte: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << bit]))


def _is_told(found: pt.Verification, name: str, inside: int, byte: int) -> bool:
    """Tell whether one failure is found, at the parameter, and in ranges that hold the byte."""
    if len(found.failures) != 1 or found.intact != found.tensors - 1:
        return False
    failure = found.failures[0]
    ranges = [(place.start, place.stop) for place in failure.places if place.start is not None]
    return (
        failure.name == name
        and failure.what in ("changed", "unreadable")
        and failure.start <= inside < failure.stop
        and all(start <= byte < stop for start, stop in ranges)
    )


def main(words: Sequence[str] | None = None) -> int:
    """Flip, print a line for each format, and return 1 if a flip was missed or a file failed without one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("flips", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    share, more = divmod(options.flips, len(SUFFIXES))
    arrays = checkpoint(options.seed)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(SUFFIXES):
            path = written(Path(folder), name, arrays)
            found = flip(path, pt.manifest(path), arrays, share + (place < more), options.seed)
            results.append(found)
            print(
                f"{path.suffix}: {found.flips} flips, {len(found.missed)} missed, {found.alarms} false alarms"
            )
    flips, missed = sum(one.flips for one in results), sum(len(one.missed) for one in results)
    alarms = sum(one.alarms for one in results)
    print(f"all: {flips} flips, {missed} missed, {flips} verified without one, {alarms} false alarms")
    return 1 if missed or alarms else 0


if __name__ == "__main__":
    sys.exit(main())
