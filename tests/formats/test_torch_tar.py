"""Tar files of PyTorch before 0.1.10, laid out as their writer did, against what torch still reads."""

from __future__ import annotations

import io
import struct
import tarfile

import numpy as np
import pytest

import paratree as pt
from tests.attacks.cases_torch_tar import pid, storages, tensors, torch_tar
from tests.attacks.makers import Op, name, op, pickled

FLOATS = (7, name("torch", "FloatStorage"), 12, struct.pack("<12f", *range(12)))
LONGS = (9, name("torch", "LongStorage"), 2, struct.pack("<2q", 5, -6))
VIEW = (10, 7, 6, 6)  # the second half of the floats
TENSORS = [
    (20, 7, 2, (3, 4, 4, 1, 0)), (21, 7, 2, (4, 3, 1, 4, 0)), (22, 7, 1, (3, 2, 5)), (23, 9, 1, (2, 1, 0)),
    (24, 10, 1, (6, 1, 0)), (25, 9, 0, (1,)),
]  # fmt: skip
STATE = {
    "w": pid(20), "again": pid(20), "t": pid(21), "part": pid(22), "n": pid(23), "half": pid(24),
    "one": pid(25), "epoch": 3,
}  # fmt: skip


def made(value: object = None) -> bytes:
    return torch_tar(
        STATE if value is None else value,
        storages=storages([FLOATS, LONGS], (VIEW,)),
        tensors=tensors(TENSORS),
    )


def opened(tmp_path, content: bytes) -> pt.ParamTree:
    (tmp_path / "model.pth.tar").write_bytes(content)
    return pt.open(tmp_path / "model.pth.tar")


def test_tensors_views_and_ties(tmp_path):
    tree = opened(tmp_path, made())
    assert tree.format == "PyTorch tar"
    assert list(tree) == ["w", "again", "t", "part", "n", "half", "one"]
    assert tree["w"].value.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert tree["t"].value.tolist() == tree["w"].value.T.tolist()
    assert tree["part"].value.tolist() == [5, 7, 9]
    assert tree["n"].value.tolist() == [5, -6]
    assert tree["half"].value.tolist() == [6, 7, 8, 9, 10, 11]
    assert tree["one"].value == -6
    assert tree.ties == (("w", "again"),)
    assert tree.meta == {"epoch": 3}


def test_equals_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch's own reading is the truth here")
    tree = opened(tmp_path, made())
    expected = torch.load(tmp_path / "model.pth.tar", weights_only=False)
    assert expected.pop("epoch") == 3
    assert set(tree) == set(expected)
    for key, values in expected.items():
        np.testing.assert_array_equal(tree[key].value, values.numpy(), strict=True)


def test_a_whole_module_with_its_source_code(tmp_path):
    """The class is a persistent id with file and source code, which is not looked at."""
    kind = Op(op((name("mine", "Net"), "net.py", "import os; os.system('evil')")) + b"Q")
    state = {"_parameters": {"weight": pid(20)}, "_buffers": {}, "_modules": {}}
    tree = opened(tmp_path, made(Op(kind + b")\x81" + op(state) + b"b")))
    assert list(tree) == ["weight"]
    assert tree["weight"].kind == "parameter"


def test_extended_headers_of_the_tarfile_module(tmp_path):
    """The writer used the standard library's, which puts a fractional time into an extended header."""
    stream = io.BytesIO()
    parts = {"sys_info": pickled({"protocol_version": 1000}), "pickle": pickled(STATE),
             "tensors": tensors(TENSORS), "storages": storages([FLOATS, LONGS], (VIEW,))}  # fmt: skip
    with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for path, data in parts.items():
            info = tarfile.TarInfo(path)
            info.size, info.mtime = len(data), 1490000000.123456
            archive.addfile(info, io.BytesIO(data))
    tree = opened(tmp_path, stream.getvalue())
    assert tree["w"].value.sum() == 66


def test_another_tar_file_is_none_of_ours(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt"), io.BytesIO())
    with pytest.raises(pt.UnknownSourceError):
        opened(tmp_path, stream.getvalue())
