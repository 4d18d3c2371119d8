"""Hostile and damaged .eqx files, each with its good twin."""

from __future__ import annotations

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, npy

ONE = npy()
LINE = b'{"width": 8}\n'
GOOD = ONE + ONE
GOOD_LINE = LINE + GOOD
_CODE = b"{'descr': __import__('os').system('touch evil'), 'fortran_order': False, 'shape': (4,), }\n"
_PICKLE = npy("'|O'", data=b"cos\nsystem\n(S'touch evil'\ntR.")


def _case(id: str, second: bytes, good: bytes = GOOD, get: str = "") -> Case:
    return Case(id, ".eqx", ONE + second, good, get)


def _line(id: str, line: bytes) -> Case:
    return Case("line-" + id, ".eqx", line + b"\n" + GOOD, GOOD_LINE)


SWEEPS = [Sweep("changed.eqx", GOOD), Sweep("line.eqx", GOOD_LINE)]
CASES = [
    Case("empty", ".eqx", b"", GOOD), Case("only-line", ".eqx", LINE, GOOD_LINE),
    Case("line-without-end", ".eqx", LINE[:-1] + GOOD, GOOD_LINE), Case("line-of-two-megabytes", ".eqx", b'{"a": "' + b"x" * (2 << 20) + b'"}\n' + GOOD, GOOD_LINE),
    _line("no-json", b'{"width": nonsense}'), _line("cut", b'{"width": 8'), _line("deep", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    _line("duplicate-key", b'{"a": 1, "a": 2}'), _line("not-utf8", b'{"\xff": 1}'), _line("digits", b'{"a": ' + b"9" * 5000 + b"}"),
    _line("two-objects", b'{"a": 1} {"b": 2}'),
    Case("first-code", ".eqx", npy(header=_CODE) + ONE, GOOD), Case("first-objects", ".eqx", _PICKLE + ONE, GOOD),
    Case("first-longer-than-the-file", ".eqx", npy(shape="(4000,)") + ONE, GOOD),
    Case("first-shorter", ".eqx", npy(shape="(3,)") + ONE, GOOD), Case("first-longer-by-one", ".eqx", npy(shape="(5,)") + ONE, GOOD),
    _case("cut-in-magic", ONE[:4]), _case("cut-in-version", ONE[:7]), _case("cut-in-length", ONE[:9]), _case("cut-in-header", ONE[:30]),
    _case("cut-after-header", ONE[:-16]), _case("cut-one-byte", ONE[:-1]), _case("one-byte-more", ONE + b"\0"),
    _case("no-record", b"#!/bin/sh\n"), _case("zeros", bytes(4096)), _case("pickle", b"cos\nsystem\n(S'touch evil'\ntR."),
    _case("version-9", npy(version=9)), _case("version-0", ONE[:6] + b"\0\0" + ONE[8:]),
    _case("header-empty", npy(header=b"")), _case("header-is-code", npy(header=_CODE)),
    _case("header-binary", npy(header=bytes(range(256)))), _case("header-65535", npy(length=65535)),
    *(_case(f"shape-{label}", npy(shape=f"({n},)")) for label, n in NUMBERS.items()),
    _case("shape-terabytes", npy(shape="(1000000000000,)")), _case("shape-overflows", npy(shape="(4294967296, 4294967296, 4294967296)")),
    _case("shape-zero-times-huge", npy(shape="(9223372036854775807, 9223372036854775807, 0)", data=b"")),
    _case("shape-rank-3000", npy(shape="(" + "1," * 3000 + ")", data=bytes(4))), _case("shape-negative", npy(shape="(-4,)")),
    _case("objects", _PICKLE), _case("objects-in-a-record", npy("[('a', 'O')]")),
    _case("text-of-terabytes", npy("'<U9999999'", "(1000000,)")), _case("void-of-terabytes", npy("'|V999999999'", "(1000000,)")),
    _case("void", npy("'|V4'"), get="1"),
]  # fmt: skip
