"""The spectrum of a parameter: figures, and the singular values as bars; or JSON."""

from __future__ import annotations

from math import log
from textwrap import wrap
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.json import SCHEMA, document, number
from paratree.render.text import columns
from paratree.render.units import plural, shape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.verbs._power_law import PowerLaw
    from paratree.verbs.spectrum import Spectrum

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60
_LEAST_BARS = 8
_LEAST_FACT = 14
_WIDE = 80  # as a pipe, in which lines stay whole


def lines(found: Spectrum, *, width: int = 80) -> list[str]:
    """Return a spectrum as plain text, line by line."""
    text = [*_wrapped(" · ".join(_head(found)), width), "", *_facts(found, width)]
    if len(found.values) > 1 and found.spectral:
        first, last = (f"{float(found.values[i]):.3g}" for i in (0, -1))
        bars = _bars(found.values.tolist(), max(min(_WIDEST, width - len(first + last) - 2), _LEAST_BARS))
        says = "singular values, the largest first, on a logarithmic scale"
        text += ["", *_wrapped(says, width), f"{first} {bars} {last}"]
    return text


def _facts(found: Spectrum, width: int) -> list[str]:
    """Return the table; what is too long for its line goes on below, in its column."""
    rows = _table(found)
    if width >= _WIDE:
        return columns(rows)
    indent = max(len(name) for name, _ in rows) + 2
    if indent + _LEAST_FACT > width:
        return [line for row in rows for line in _wrapped(": ".join(row), width)]
    return columns(
        [
            ("" if number else name, line)
            for name, fact in rows
            for number, line in enumerate(_wrapped(fact, width - indent))
        ]
    )


def _wrapped(text: str, width: int) -> list[str]:
    return [text] if width >= _WIDE else wrap(text, max(width, 1), break_on_hyphens=False)


def _head(found: Spectrum) -> list[str]:
    words = [f"{printable(found.name) or 'the array'}: {shape(found.shape)} {printable(found.dtype)}"]
    if found.shape != (found.rows, found.columns):
        axes = f", the {found.row_axis} axis against the rest" if len(found.shape) > 1 else ""
        words.append(f"as {found.rows} × {found.columns}{axes}")
    number = len(found.values)
    exact = f"{plural(number, 'singular value')}, exact"
    words.append(exact if found.is_exact else f"{number} largest singular values, approximated")
    return words


def _table(found: Spectrum) -> list[tuple[str, str]]:
    of = f" of {min(found.rows, found.columns)}"
    rows = {
        "spectral norm": f"{found.spectral:.6g}",
        "Frobenius norm": f"{found.frobenius:.6g}",
        "stable rank": f"{found.stable_rank:.4g}{of}",
    }
    if found.effective_rank is not None:
        rows["effective rank"] = f"{found.effective_rank:.4g}{of}"
    if found.rank is not None:
        rows["rank"] = f"{found.rank}{of}"
    if found.condition is not None:
        rows["condition number"] = f"{found.condition:.4g}"
    if found.errors is not None:
        first, worst = float(found.errors[0]), float(found.errors.max())
        rows["error"] = f"at most {first:.1g} of the first, {worst:.1g} of any (exactly: --exact-below N)"
    if found.tail is not None:
        rows["tail"] = _tail(found.tail)
    return list(rows.items())


def _tail(tail: PowerLaw) -> str:
    exponent = f"{tail.alpha:.2f} ± {tail.error:.2f}"
    return f"power law, exponent {exponent}, of {tail.tail} eigenvalues; KS distance {tail.distance:.3f}"


def _bars(values: Sequence[float], width: int) -> str:
    """Return a bar for each of at most ``width`` values, evenly chosen; zero has none."""
    width = min(width, len(values))
    chosen = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    logs = [log(value) if value > 0 else None for value in chosen]
    known = [height for height in logs if height is not None]
    low, high = min(known), max(known)
    step = (len(_BARS) - 1) / ((high - low) or 1.0)
    return "".join(" " if height is None else _BARS[round((height - low) * step)] for height in logs)


def json(found: Spectrum, source: str) -> str:
    """Return a spectrum as a JSON document, its singular values a line each."""
    fields = {
        "schema": SCHEMA,
        "source": source,
        **{
            field: getattr(found, field)
            for field in ("name", "shape", "dtype", "rows", "columns", "row_axis")
        },
        "exact": found.is_exact,
        "spectral_norm": found.spectral,
        "frobenius_norm": found.frobenius,
        "stable_rank": found.stable_rank,
        "effective_rank": found.effective_rank,
        "rank": found.rank,
        "condition": None if found.condition is None else number(found.condition),
        "errors": None if found.errors is None else found.errors.tolist(),
        "tail": None if found.tail is None else _fields(found.tail),
    }
    return document(fields, "singular_values", [repr(value) for value in found.values.tolist()])


def _fields(tail: PowerLaw) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        name: number(value) if isinstance(value, float) else value for name, value in asdict(tail).items()
    }
