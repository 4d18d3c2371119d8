"""One JSON document for each result, with a ``schema`` number: for programs.

A tensor takes one line, so that diff and grep work, too. Everything outside ASCII is escaped: a name cannot
act on a terminal. NaN and Infinity, which JSON does not have, are strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from math import isfinite

from paratree.core.errors import UnreadableError, printable
from paratree.core.names import last_segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from paratree.core.param import Param
    from paratree.verbs.formats import FormatFacts
    from paratree.verbs.get import Values
    from paratree.verbs.listing import Listing, Row
    from paratree.verbs.ties import Ties

SCHEMA = 1
_DEEPEST = 50
_MOST_VALUES = 100_000  # a pickle of a kilobyte can stand for a list of 2^64 entries
_LONGEST_REPR = 200
_LONGEST_INTEGER = 1024  # bits
_TOTAL = ("names", "count", "size", "nbytes", "expanded_size", "expanded_nbytes", "unknown")


def listing(found: Listing) -> str:
    """Return a listing: every selected parameter, nothing folded; subtrees if a depth was asked for."""
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "source": found.source,
        "format": found.format,
        "prefix": found.prefix,
        "names": found.of,
        "totals": {
            kind: {field: getattr(total, field) for field in _TOTAL} for kind, total in found.totals.items()
        },
        "dtypes": dict(found.dtypes),
        "ties": found.ties,
        "unreadable": [{"reason": reason, "tensors": number} for reason, number in found.unreadable],
        "notes": found.notes,
        "meta": plain(found.meta),
    }
    if found.depth is None:
        twin = {name: group[0] if i else group[1] for group in found.ties for i, name in enumerate(group)}
        return document(fields, "params", _params(found.params, twin))
    return document(fields, "subtrees", [json.dumps(_subtree(row)) for row in found.rows])


def document(fields: Mapping[str, Any], rows_name: str, rows: Iterable[str]) -> str:
    """Return an object of ``fields`` and then an array of rows that are JSON already, a line each."""
    top = [f"{quoted(name)}: {json.dumps(value, allow_nan=False)}" for name, value in fields.items()]
    body = ",\n  ".join(rows)
    top.append(f"{quoted(rows_name)}: [\n  {body}\n ]" if body else f"{quoted(rows_name)}: []")
    return "{\n " + ",\n ".join(top) + "\n}\n"


def _params(params: Mapping[str, Param], twin: Mapping[str, str]) -> Iterable[str]:
    """Yield a line for each parameter; what many have in common is formatted once: most of the work."""
    common: dict[tuple[object, ...], str] = {}
    for name, param in params.items():
        array = param.array
        last = last_segment(param.name)  # decides the role
        key = (array.shape, array.dtype, param.kind, param.trainable, last, param.layout, array.problem)
        if (middle := common.get(key)) is None:
            middle = common[key] = json.dumps(_description(param))[1:-1]
        tied = quoted(twin[name]) if name in twin else "null"
        yield f'{{"name": {quoted(name)}, {middle}, "tied_with": {tied}}}'


def _description(param: Param) -> dict[str, object]:
    return {
        "shape": param.shape,
        "dtype": param.dtype,
        "size": param.size,
        "nbytes": param.nbytes,
        "kind": param.kind,
        "trainable": param.trainable,
        "role": param.role,
        "layout": param.layout,
        "readable": param.array.problem is None,
        "problem": param.array.problem,
    }


def _subtree(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "tensors": row.tensors,
        "shape": row.shape,
        "dtypes": row.dtypes,
        "size": row.size,
        "nbytes": row.nbytes,
        "kind": row.kind,
    }


def plain(value: object) -> Any:
    """Return ``value`` as JSON can hold it; what it cannot, or is too deep or too much, becomes text."""
    return _plain(value, 0, [_MOST_VALUES])


def _plain(value: object, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST_INTEGER else f"<integer of {value.bit_length()} bits>"
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if depth >= _DEEPEST or left[0] <= 0:
        return "…"
    if isinstance(value, Mapping):
        return {_key(key): _plain(below, depth + 1, left) for key, below in value.items() if left[0] > 0}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(below, depth + 1, left) for below in value if left[0] > 0]
    return repr(value)[:_LONGEST_REPR]


def _key(key: object) -> str:
    return key if isinstance(key, str) else str(_plain(key, _DEEPEST, [1]))


def number(value: float) -> float | str:
    """Return a float, or its name if JSON cannot hold it.

    >>> number(0.5), number(float("nan")), number(-float("inf"))
    (0.5, 'NaN', '-Infinity')
    """
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def ties(found: Ties) -> str:
    """Return tied groups, a line each."""
    fields = {"schema": SCHEMA, "source": found.source}
    return document(fields, "ties", [json.dumps(_fields(group)) for group in found.groups])


def formats(found: Iterable[FormatFacts]) -> str:
    """Return what is known of formats, a line each."""
    return document({"schema": SCHEMA}, "formats", [json.dumps(_fields(facts)) for facts in found])


def _fields(record: object) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)  # type: ignore[call-overload, no-any-return]


def values(found: Values) -> str:
    """Return values as nested lists; complex ones are pairs.

    Raises:
        UnreadableError: there are too many for a text.
    """
    import numpy as np

    array = found.values
    if array.size > _MOST_VALUES:
        raise UnreadableError(
            f"{printable(found.param.name)}: {array.size} values are too many for JSON (at most "
            f"{_MOST_VALUES}); take a part (--slice 0:10) or write a file (-o FILE.npy)"
        )
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    if array.dtype.kind not in "biuf":  # bfloat16 and the other ml_dtypes, all exact in float32
        array = array.astype(np.float32)
    fields = {
        "schema": SCHEMA,
        "source": found.source,
        "name": found.param.name,
        "shape": found.values.shape,
        "dtype": found.dtype,
        "changed": found.changed,
    }
    fields["values"] = array.tolist() if bool(np.isfinite(array).all()) else _numbers(array.tolist())
    lines = [f"{quoted(name)}: {json.dumps(value, allow_nan=False)}" for name, value in fields.items()]
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _numbers(values: Any) -> Any:
    return [_numbers(value) for value in values] if isinstance(values, list) else number(values)
