"""Members of tar archives, as the standard library writes them in its three formats."""

import io
import tarfile

import pytest

from paratree.files.local import LocalFile, read
from paratree.files.tar import first_name, tar_members


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "sizes", [{"a": 0, "folder/b": 1}, {"a": 512, "b" * 99: 513}, {"x" * 90 + "/" + "y" * 60: 3}]
)
def test_members_are_where_the_writer_put_them(tmp_path, format, sizes):
    path = tmp_path / "m.tar"
    with tarfile.open(path, "w:", format=format) as archive:
        for i, (name, size) in enumerate(sizes.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = size, 5.25 if format == tarfile.PAX_FORMAT else 5
            archive.addfile(info, io.BytesIO(bytes([i + 1]) * size))
    file = LocalFile(path)
    members = tar_members(file, 2)
    assert list(members) == list(sizes)
    for i, (name, size) in enumerate(sizes.items()):
        assert read(members[name], 0, members[name].size) == bytes([i + 1]) * size


def test_a_name_beyond_latin(tmp_path):
    path = tmp_path / "m.tar"
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("größe-水"), io.BytesIO())
    assert list(tar_members(LocalFile(path), 1)) == ["größe-水"]


def test_no_tar_file_has_no_first_name(tmp_path):
    path = tmp_path / "m.tar"
    path.write_bytes(b"ustar" * 300)
    assert first_name(LocalFile(path)) is None
