"""How a ``Loaded`` looks: the verdict, what does not fit with its cause, a row a parameter, JSON, HTML."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.json import SCHEMA, document, plain
from paratree.render.text import NOUNS, columns
from paratree.render.units import count, plural, shape
from paratree.verbs._load_report import CAST, EXACT, SHAPE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from paratree.verbs._load_report import Loaded, LoadGroup, ParamLoad

HEADS = ("name", "from", "what", "shape", "dtype")
_MOST_NAMES = 6  # of a group


def lines(found: Loaded, *, everything: bool = False) -> list[str]:
    """Return a report as plain text, line by line.

    Args:
        found: what was loaded.
        everything: whether to list every parameter, not only what is worth a look.
    """
    text = [found.verdict, title(found)]
    for group in found.groups:
        text += ["", *_group(group)]
    if listed := found.rows if everything else _listed(found):
        text += ["", *_rows(listed)]
    if below := foot(found):
        text += ["", *below]
    return text


def title(found: Loaded) -> str:
    """Return what was loaded into what."""
    return f"{printable(found.source)} → {printable(found.into)}"


def _group(group: LoadGroup) -> list[str]:
    place = f" under {printable(group.place)}" if group.place and len(group.names) > 1 else ""
    names = ", ".join(map(printable, group.names[:_MOST_NAMES])) + ", …" * (len(group.names) > _MOST_NAMES)
    head = f"{plural(len(group.names), 'tensor')} {_word(group.status)}{place}: {printable(group.cause)}"
    return [head, f"    {names}", f"    Fix: {group.fix}"]


def _word(status: str) -> str:
    return "of another shape" if status == SHAPE else status


def _listed(found: Loaded) -> list[ParamLoad]:
    """Return the rows that are worth a look, but for those of which a group says all."""
    return [
        row for row in found if row.status in (SHAPE, CAST) or (row.status == EXACT and row.axes is not None)
    ]


def _rows(listed: Sequence[ParamLoad]) -> list[str]:
    return columns([HEADS, *map(cells, listed)])


def cells(row: ParamLoad) -> tuple[str, ...]:
    """Return the texts of a row, one for each of :data:`HEADS`."""
    return (
        ", ".join(map(printable, (row.name, *row.tied) if row.dtypes[0] is not None else ("–",))),
        "–" if row.other is None else printable(row.other),
        "; ".join(_what(row)),
        _both([None if lengths is None else shape(lengths) for lengths in row.shapes]),
        _both([None if dtype is None else printable(dtype) for dtype in row.dtypes]),
    )


def _what(row: ParamLoad) -> Iterator[str]:
    yield _word(row.status)
    if row.changed:
        yield f"{count(row.changed)} of {count(row.size or 0)} values rounded"
    if row.axes is not None:
        yield "transposed" if row.axes == (1, 0) else f"axes in the order {row.axes}"
    if row.problem is not None:
        yield printable(row.problem)


def _both(texts: list[str | None]) -> str:
    """Return what is so in the source, and in the model if that is another.

    >>> _both(["4", "4"]), _both(["float32", "float64"]), _both([None, "4"])
    ('4', 'float64 → float32', '4')
    """
    model, source = texts
    if model == source or None in texts:
        return model or source or ""
    return f"{source} → {model}"


def foot(found: Loaded) -> list[str]:
    """Return what else one should know: ties that the model has not, what was left out."""
    text = [*found.notes]
    for tie in found.ties:
        names = " = ".join(map(printable, tie.names))
        text.append(f"tied in the source only: {names}; each has its value in the model, apart from now on")
    facts = [f"{plural(names, NOUNS[kind])} left out" for kind, names in found.hidden]
    return text + ([" · ".join(facts)] if facts else [])


def table(found: Loaded) -> Screen:
    """Return a report as something rich can print."""
    return Screen(found)


class Screen:
    """A report in a terminal."""

    def __init__(self, found: Loaded) -> None:
        self._found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        from rich.text import Text

        yield Text(self._found.verdict, "bold green" if self._found.complete else "bold")
        yield Text(title(self._found), "dim")
        for group in self._found.groups:
            head, names, fix = _group(group)
            yield from (Text(), Text(head), Text(names, "dim"), Text(fix, "yellow"))
        if listed := _listed(self._found):
            yield Text()
            yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in _rows(listed))
        if below := foot(self._found):
            yield from (Text(), *(Text(line, "dim") for line in below))


def html(found: Loaded) -> str:
    """Return a report as HTML for a notebook; every text is escaped."""
    text = [found.verdict, title(found), *(line for group in found.groups for line in _group(group))]
    notes = "<br>".join(escape(line) for line in [*text, *foot(found)])
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells(row)) + "</tr>"
        for row in _listed(found)
    )
    return f"<p>{notes}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def as_json(found: Loaded) -> str:
    """Return one JSON document, a parameter on each line; it does not have the model."""
    fields = {
        "schema": SCHEMA,
        "source": found.source,
        "into": found.into,
        "complete": found.complete,
        "verdict": found.verdict,
        "groups": [asdict(group) for group in found.groups],
        "ties": [tie.names for tie in found.ties],
        "hidden": dict(found.hidden),
        "notes": found.notes,
    }
    return document(fields, "rows", [json.dumps(plain(row)) for row in found.to_dicts()])
