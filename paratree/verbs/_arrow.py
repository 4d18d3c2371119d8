"""Statistics as an Arrow table, through nanoarrow (Arrow PyCapsule interface)."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from paratree.core.errors import MissingPackageError
from paratree.verbs._distribution import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.verbs.stats import ParamStats

_TEXTS = ("name", "dtype", "kind", "of", "tied_with", "problem")
_WHOLE = ("size", "nan", "pos_inf", "neg_inf", "zeros", "distinct", "params")
_REAL = ("min", "max", "mean", "std", "rms", "l1", "l2", "absmax", "quantile_error", "quantile_step")
_LISTS = ("shape", "spark", "exponents", "negative", "positive")


def stream(rows: Sequence[ParamStats]) -> object:
    """Return a capsule of an Arrow stream with a row for each parameter.

    Quantiles are columns ``q0.001`` to ``q0.999``, the histogram three columns of lists.

    Raises:
        MissingPackageError: nanoarrow is not installed.
    """
    try:
        import nanoarrow as na
        from nanoarrow.c_array_stream import CArrayStream
    except ImportError:
        raise MissingPackageError(
            "statistics as an Arrow table need: pip install 'paratree[arrow]' (or use .to_dicts())"
        ) from None
    columns: dict[str, tuple[Any, Any]] = {}
    for names, kind in ((_TEXTS, na.string()), (_WHOLE, na.int64()), (_REAL, na.float64())):
        for name in names:
            columns[name] = (kind, na.c_array([getattr(row, name) for row in rows], kind))
    for place, q in enumerate(QUANTILES):
        values = [None if row.quantiles is None else row.quantiles[place] for row in rows]
        columns[f"q{q:g}"] = (na.float64(), na.c_array(values, na.float64()))
    for name in _LISTS:
        columns[name] = (na.list_(na.int64()), _lists(na, [_list(row, name) for row in rows]))
    schema = na.struct({name: kind for name, (kind, _) in columns.items()})
    table = na.c_array_from_buffers(
        schema, len(rows), [None], children=[array for _, array in columns.values()]
    )
    found: object = CArrayStream.from_c_arrays([table], na.c_schema(schema)).__arrow_c_stream__()
    return found


def _list(row: ParamStats, name: str) -> Sequence[int | None]:
    held = row if name in ("shape", "spark") else row.histogram
    return () if held is None else getattr(held, name) or ()


def _lists(na: Any, lists: Sequence[Sequence[int | None]]) -> Any:
    ends = na.c_buffer([0, *accumulate(map(len, lists))], na.int32())
    flat = na.c_array([value for values in lists for value in values], na.int64())
    return na.c_array_from_buffers(na.list_(na.int64()), len(lists), [None, ends], children=[flat])
