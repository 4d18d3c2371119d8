"""Hostile and damaged .npy and .npz files, each with its good twin."""

from __future__ import annotations

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, member, npy, zipped

GOOD = npy()
ARCHIVE = [member("w.npy", GOOD)]
GOOD_ZIP = zipped(ARCHIVE)
_CODE = b"{'descr': __import__('os').system('touch evil'), 'fortran_order': False, 'shape': (4,), }\n"


def _npy(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case(id, ".npy", bad, good, get)


def _npz(id: str, bad: object, good: object = GOOD_ZIP, get: str = "") -> Case:
    return Case("npz-" + id, ".npz", bad, good, get)


def _zip_of(**wrong: object) -> bytes:
    return zipped([member("w.npy", GOOD, **wrong)])  # type: ignore[arg-type]


SWEEPS = [Sweep("changed.npz", GOOD_ZIP)]
CASES = [
    _npy("empty", b""), _npy("cut-in-magic", GOOD[:4]), _npy("cut-in-version", GOOD[:7]), _npy("cut-in-length", GOOD[:9]),
    _npy("cut-in-header", GOOD[:30]), _npy("cut-after-header", GOOD[:-16]), _npy("cut-one-byte", GOOD[:-1]),
    _npy("one-byte-more", GOOD + b"\0"), _npy("second-array-cut", GOOD + GOOD[:-1]),
    _npy("version-9", npy(version=9)), _npy("version-0", GOOD[:6] + b"\0\0" + GOOD[8:]),
    _npy("header-empty", npy(header=b"")), _npy("header-is-code", npy(header=_CODE)),
    _npy("header-is-bomb", npy(header=b"{'descr': '<f4'*10**9, 'fortran_order': False, 'shape': (4,), }\n")),
    _npy("header-unclosed", npy(header=b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,\n")),
    _npy("header-binary", npy(header=bytes(range(256)))),
    _npy("header-65535", npy(length=65535)),
    *(_npy(f"header-{label}", npy(length=min(n, 2**32 - 1), version=2)) for label, n in list(NUMBERS.items())[:2]),
    *(_npy(f"shape-{label}", npy(shape=f"({n},)")) for label, n in NUMBERS.items()),
    _npy("shape-terabytes", npy(shape="(1000000000000,)")),
    _npy("shape-overflows", npy(shape="(4294967296, 4294967296, 4294967296)")),
    _npy("shape-zero-times-huge", npy(shape="(9223372036854775807, 9223372036854775807, 0)", data=b"")),
    _npy("shape-rank-3000", npy(shape="(" + "1," * 3000 + ")", data=bytes(4))),
    _npy("shape-negative", npy(shape="(-4,)")), _npy("shape-fraction", npy(shape="(4.0,)")),
    _npy("shape-digits", npy(shape="(" + "9" * 5000 + ",)")),
    _npy("shape-smaller", npy(shape="(3,)")), _npy("dtype-wider", npy("'<f8'")),
    _npy("objects", npy("'|O'", data=b"cos\nsystem\n(S'touch evil'\ntR."), get="bad"),
    _npy("records", npy("[('a', '<f4')]"), get="bad"),
    _npz("cut-in-directory", GOOD_ZIP[:-10]), _npz("cut-in-member", GOOD_ZIP[:40]), _npz("only-magic", GOOD_ZIP[:4]),
    _npz("byte-after-end", GOOD_ZIP + b"\0"),
    _npz("two-of-one-name", zipped(ARCHIVE * 2), zipped([*ARCHIVE, member("v.npy", GOOD)])),
    _npz("overlap", zipped([*ARCHIVE, member("v.npy", GOOD, offset=0)])),
    _npz("local-name-differs", _zip_of(local_path=b"v.npy")), _npz("local-size-differs", _zip_of(local_size=7)),
    _npz("local-method-differs", _zip_of(local_method=8)), _npz("local-crc-differs", _zip_of(local_crc=1)),
    _npz("stored-two-sizes", _zip_of(size=len(GOOD) + 1)), _npz("size-2^32-2", _zip_of(size=2**32 - 2, compressed=2**32 - 2)),
    _npz("encrypted", _zip_of(flags=1)), _npz("method-12", _zip_of(method=12)),
    _npz("offset-beyond", _zip_of(offset=2**31)), _npz("offset-in-data", _zip_of(offset=20)),
    _npz("count-65534", zipped(ARCHIVE, count=65534)), _npz("count-zero", zipped(ARCHIVE, count=0)),
    _npz("directory-size-2^31", zipped(ARCHIVE, directory_size=2**31)),
    _npz("directory-offset-2^31", zipped(ARCHIVE, directory_offset=2**31)),
    _npz("comment-lies", zipped(ARCHIVE, comment_length=9), zipped(ARCHIVE, b"a comment")),
    _npz("zip64-without-record", zipped(ARCHIVE, count=0xFFFF)),
    _npz("inflates-beyond-physics", lambda: zipped([member("w.npy", npy(shape="(1000000000,)"), method=8, size=4_000_000_080)]), lambda: zipped([member("w.npy", GOOD, method=8)])),
    _npz("deflate-damaged", zipped([member("w.npy", b"\xff" * 60, method=8, raw=1, size=80)]), zipped([member("w.npy", GOOD, method=8)])),
    _npz("deflate-too-short", zipped([member("w.npy", npy(shape="(5,)", data=bytes(20))[:-4], method=8, size=100)])),
    _npz("bomb", lambda: zipped([member("w.npy", npy("'<u1'", f"({256 << 20},)", bytes(256 << 20), version=2), method=8)]), lambda: zipped([member("w.npy", GOOD, method=8)]), get="w"),
    _npz("crc", lambda: zipped([member("w.npy", GOOD, crc=7)]), GOOD_ZIP, get="w"),
    _npz("member-no-array", zipped([member("w.npy", b"#!/bin/sh\n")])),
    _npz("member-shape-terabytes", zipped([member("w.npy", npy(shape="(1000000000000,)"))])),
]  # fmt: skip
