"""Hostile Keras and HDF5 files are refused in one line; damage of any kind gives our errors and no other.

Random damage is tried in a process of its own: a native library may crash or hang.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import paratree as pt
from tests.attacks import cases_keras
from tests.attacks.harness import run, write

ROOT = Path(__file__).parents[2]


def test_hostile_names_are_data(tmp_path):
    case = next(case for case in cases_keras.CASES if case.id == "hostile-name-of-a-link")
    found = run((), "show", str(write(case, "good", tmp_path)))
    assert found.code == 0, found
    assert "\x1b" not in found.out
    assert "\u202e" not in found.out


def test_a_lambda_stays_text(tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(cases_keras.ARCHIVE)
    found = run((), "show", str(path))
    assert found.code == 0, found
    with pt.open(path) as tree:
        layers = tree.meta["model_config"]["config"]["layers"]
        assert layers[1]["config"]["function"]["config"]["code"] == "4wEAAAA="


def test_one_text_for_thousands_of_names_is_read_once(tmp_path):
    """HDF5 would copy the megabyte four thousand times."""
    case = next(case for case in cases_keras.CASES if case.id == "layer-names-repeat-one-text")
    found = run((), "show", str(write(case, "bad", tmp_path)))
    assert found.code == 2
    assert found.memory < run(()).memory + (32 << 20)


def test_what_only_a_writer_reads_is_not_believed(tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(cases_keras.free_circle())
    with pt.open(path) as tree:
        assert list(tree) == ["first.kernel", "first.bias"]


def _packed(file) -> None:
    cases_keras.keras3(file)
    file.create_dataset(
        "packed", data=np.zeros((9, 9), "f4"), chunks=(4, 4), compression="gzip", shuffle=True
    )
    held = file["layers/dense/vars"].create_dataset("2", data=np.zeros(4, "V2"))
    held.attrs["dtype"] = "bfloat16"


GOODS = {
    "keras-3": (cases_keras.GOOD, ".weights.h5"),
    "legacy": (cases_keras.LEGACY, ".h5"),
    "archive": (cases_keras.ARCHIVE, ".keras"),
    "packed": (cases_keras.hdf5(_packed), ".h5"),
    "newest": (cases_keras.hdf5(_packed, libver="latest", track_order=True), ".h5"),
}
DAMAGES = 120  # of each kind, to each good file
SECONDS = 1.0


def _flip(data: bytearray, generator: random.Random) -> None:
    place = generator.randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8


def _number(data: bytearray, generator: random.Random) -> None:
    place = generator.randrange(len(data) - 8)
    number = generator.choice([0, 1, 1 << 31, 1 << 32, 1 << 53, 1 << 62, 1 << 63, (1 << 64) - 1, len(data)])
    data[place : place + 8] = number.to_bytes(8, "little")


def _copy(data: bytearray, generator: random.Random) -> None:
    of, to = generator.randrange(len(data) - 64), generator.randrange(len(data) - 64)
    data[to : to + 64] = data[of : of + 64]


def _cut(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


def damage(name: str, kind: str, folder: Path) -> None:
    """Damage a good file in many ways and open what comes of it; run by a process of its own."""
    good, suffix = GOODS[name]
    generator = random.Random(f"{name} {kind}")
    path = folder / f"changed{suffix}"
    refused = 0
    for _ in range(DAMAGES):
        data = bytearray(good)
        globals()[f"_{kind}"](data, generator)
        path.write_bytes(data)
        start = time.process_time()
        try:
            with pt.open(path) as tree:
                for param in tree.values():
                    if param.array.problem is None:
                        assert param.value.shape == param.shape
        except pt.ParatreeError as error:
            refused += 1
            assert str(error).isprintable()
            assert str(path) in str(error)
        assert time.process_time() - start < SECONDS
    assert kind != "cut" or refused == DAMAGES


@pytest.mark.once
@pytest.mark.parametrize("kind", ["flip", "number", "copy", "cut"])
@pytest.mark.parametrize("name", GOODS)
def test_nothing_but_our_errors_escapes(name, kind, tmp_path):
    code = f"import pathlib, tests.attacks.test_keras as t; t.damage({name!r}, {kind!r}, pathlib.Path.cwd())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", GOODS)
def test_every_cut_at_a_boundary_is_refused(name, tmp_path):
    """Cut at every signature of a structure in the file, and one byte to either side."""
    good, suffix = GOODS[name]
    marks = [
        b"\x89HDF",
        b"TREE",
        b"HEAP",
        b"SNOD",
        b"GCOL",
        b"OHDR",
        b"FRHP",
        b"PK\3\4",
        b"PK\1\2",
        b"PK\5\6",
    ]
    places = {
        place + near for mark in marks for place in _places(good, mark) for near in (-1, 0, 1, len(mark))
    }
    assert len(places) > 4
    path = tmp_path / f"cut{suffix}"
    for place in sorted(p for p in places if 0 <= p < len(good)):
        path.write_bytes(good[:place])
        with pytest.raises(pt.ParatreeError) as found:
            pt.open(path)
        assert str(path) in str(found.value)


def _places(data: bytes, mark: bytes) -> list[int]:
    places, place = [], data.find(mark)
    while place >= 0:
        places.append(place)
        place = data.find(mark, place + 1)
    return places
