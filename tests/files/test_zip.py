"""The zip directory: archives of Python's zipfile and of torch are read; sizes over 4 GiB; comments."""

from __future__ import annotations

import random
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.errors import CorruptFileError
from paratree.files.local import LocalFile, read
from paratree.files.zip import archive

CONTENT = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\"), min_size=1, max_size=8),
    st.binary(max_size=300),
    max_size=5,
)


@given(
    CONTENT,
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.binary(max_size=30),
    st.booleans(),
)
def test_archives_of_zipfile(tmp_path_factory, content, method, comment, streamed):
    path = tmp_path_factory.mktemp("zip") / "m.zip"
    with zipfile.ZipFile(path, "w", method) as target:
        target.comment = comment
        for name, data in content.items():
            with target.open(name, "w", force_zip64=streamed) as member:
                member.write(data)
    if b"PK\5\6" in comment:
        return  # a comment that imitates the end record is ambiguous to every reader
    members = archive(LocalFile(path))
    assert members is not None
    assert {name: member.bytes() for name, member in members.items()} == content
    for name, member in members.items():
        source = member.verified()
        for start in range(0, len(content[name]), 37):
            assert read(source, start, len(content[name]) - start) == content[name][start:]


def test_unseekable_output_has_descriptors(tmp_path):
    class Pipe:
        def __init__(self):
            self.data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

        def flush(self):
            pass

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as target:  # type: ignore[arg-type]
        target.writestr("a", b"alpha")
        target.writestr("b", b"beta", zipfile.ZIP_DEFLATED)
    (tmp_path / "m.zip").write_bytes(pipe.data)
    members = archive(LocalFile(tmp_path / "m.zip"))
    assert {name: member.bytes() for name, member in members.items()} == {"a": b"alpha", "b": b"beta"}


def test_no_zip_is_none(tmp_path):
    (tmp_path / "m").write_bytes(b"text")
    assert archive(LocalFile(tmp_path / "m")) is None


def _zip64(entries: int = 1, **wrong: int) -> bytes:
    """Write an archive whose every size is in zip64 fields."""
    data, name = b"alpha", b"a"
    extra = struct.pack("<2H2Q", 1, 16, len(data), len(data))
    local = (
        struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0xFFA1FF3D, *[0xFFFFFFFF] * 2, 1, len(extra))
        + name
        + extra
    )
    central_extra = struct.pack("<2H3Q", 1, 24, len(data), len(data), 0)
    central = (
        struct.pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            45,
            45,
            0,
            0,
            0,
            0,
            0xFFA1FF3D,
            *[0xFFFFFFFF] * 2,
            1,
            len(central_extra),
            0,
            0,
            0,
            0,
            0xFFFFFFFF,
        )
        + name
        + central_extra
    )
    offset = len(local) + len(data)
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, len(central), wrong.get("offset", offset)
    )
    locator = struct.pack(
        "<4sIQI", wrong.get("locator", b"PK\6\7"), 0, wrong.get("place", offset + len(central)), 1
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + data + central + record + locator + end


def test_zip64(tmp_path):
    (tmp_path / "m.zip").write_bytes(_zip64())
    members = archive(LocalFile(tmp_path / "m.zip"))
    assert members["a"].bytes() == b"alpha"
    with zipfile.ZipFile(tmp_path / "m.zip") as same:
        assert same.namelist() == ["a"]


@pytest.mark.parametrize(
    "wrong", [{"locator": b"PK\6\0"}, {"place": 3}, {"place": 2**63}, {"offset": 2**62}, {"entries": 2**62}]
)
def test_zip64_that_lies(tmp_path, wrong):
    (tmp_path / "m.zip").write_bytes(_zip64(**wrong))
    with pytest.raises(CorruptFileError):
        archive(LocalFile(tmp_path / "m.zip"))


def test_two_disks(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as target:
        target.writestr("a", b"alpha")
    content = bytearray((tmp_path / "m.zip").read_bytes())
    content[-18] = 1
    (tmp_path / "m.zip").write_bytes(content)
    with pytest.raises(CorruptFileError, match="one part of several"):
        archive(LocalFile(tmp_path / "m.zip"))


@pytest.fixture(scope="module")
def deflated(tmp_path_factory):
    """A member of 400 kB that deflates to about half, and what is in it."""
    path = tmp_path_factory.mktemp("zip") / "m.zip"
    data = random.Random(0).randbytes(200_000).hex().encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a", data)
    return LocalFile(path), data


@given(st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 150_000)), max_size=8))
def test_a_deflated_member_is_read_anywhere_in_any_order(deflated, ranges):
    file, data = deflated
    source = archive(file)["a"].source()
    for start, length in ranges:
        wanted = data[start : start + length]
        assert read(source, start, len(wanted)) == wanted


def test_a_deflated_member_is_inflated_once_by_reads_in_turn(deflated, monkeypatch):
    file, data = deflated
    source, inflated = archive(file)["a"].source(), []
    real = zlib.decompressobj

    class Counted:
        def __init__(self, *args):
            self._engine = real(*args)

        def decompress(self, *args):
            out = self._engine.decompress(*args)
            inflated.append(len(out))
            return out

        def __getattr__(self, name):
            return getattr(self._engine, name)

    monkeypatch.setattr(zlib, "decompressobj", Counted)
    for start in range(0, len(data), 10_000):
        assert read(source, start, 10_000) == data[start : start + 10_000]
    assert sum(inflated) == len(data)


def test_a_deflated_member_is_read_by_threads(deflated):
    file, data = deflated
    source = archive(file)["a"].source()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: read(source, start, 4000), range(0, len(data), 4000)))
    assert b"".join(parts) == data
