"""Bits flipped in old tar files: those of the bytes that say something, as most of a tar file is zeros."""

import paratree as pt
from tests.attacks.cases_torch_tar import GOOD


def outcomes(path, contents):
    """Open each content, read everything, and count those that are refused; only our errors may escape."""
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            with pt.open(path) as tree:
                for param in tree.values():
                    assert param.array.problem or param.value.shape == param.shape
        except pt.ParatreeError as error:
            refused += 1
            assert str(error).isprintable()
            assert str(path) in str(error)
    return refused


def test_flipped_bits(tmp_path):
    telling = [place for place, byte in enumerate(GOOD) if byte]
    flips = ((place, 1 << bit) for place in telling for bit in (0, 3, 6))
    contents = (GOOD[:place] + bytes([GOOD[place] ^ bit]) + GOOD[place + 1 :] for place, bit in flips)
    assert outcomes(tmp_path / "m.pth.tar", contents) > 2 * len(telling)


def test_cuts(tmp_path):
    places = range(0, len(GOOD) - 512, 19)
    assert outcomes(tmp_path / "m.pth.tar", (GOOD[:place] for place in places)) == len(places)
