"""CRC-32C of any length, in pieces, with and without NumPy, against a loop over bits."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.files import crc32c
from tests.attacks.tensorflow_files import crc32c as by_bits


def test_the_values_of_the_specification():
    """RFC 3720, appendix B.4."""
    assert crc32c.checksum(bytes(32)) == 0x8A9136AA
    assert crc32c.checksum(b"\xff" * 32) == 0x62A8AB43
    assert crc32c.checksum(bytes(range(32))) == 0x46DD794E
    assert crc32c.checksum(bytes(range(31, -1, -1))) == 0x113FDB5C
    assert crc32c.checksum(b"123456789") == 0xE3069283
    assert crc32c.checksum(b"") == 0


@given(st.binary(max_size=4000), st.data())
def test_any_bytes_in_any_two_pieces(data, draw):
    cut = draw.draw(st.integers(0, len(data)))
    assert crc32c.checksum(data[cut:], crc32c.checksum(data[:cut])) == by_bits(data)


LEAST = crc32c._LEAST // 8


@pytest.mark.parametrize(
    "size", [LEAST - 1, LEAST, LEAST + 1, 3 * LEAST, crc32c._PIECE - 1, crc32c._PIECE + 5]
)
def test_long_integers(size):
    data = random.Random(size).randbytes(size)
    assert crc32c.checksum(data) == by_bits(data)


@pytest.mark.parametrize("more", [0, 1, 7, 8, 8 * crc32c._STEPS * crc32c._STEP + 3])
def test_numpy_gives_what_long_integers_give(more, monkeypatch):
    data = random.Random(more).randbytes(crc32c._LARGE + more)
    with_numpy = crc32c.checksum(data, 0x12345678)
    monkeypatch.setattr(crc32c, "_LARGE", 1 << 40)
    assert crc32c.checksum(data, 0x12345678) == with_numpy


def test_it_never_imports_numpy():
    code = "import sys; from paratree.files import crc32c; crc32c.checksum(bytes(9**6)); print(*sys.modules)"
    assert "numpy" not in subprocess.check_output([sys.executable, "-c", code], text=True).split()
