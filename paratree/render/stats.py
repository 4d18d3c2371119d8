"""How statistics look: a table with small histograms, what is worth a look, JSON."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from paratree.core.errors import printable
from paratree.render.json import SCHEMA, document, plain
from paratree.render.text import NOUNS, columns
from paratree.render.units import count, plural, shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from paratree.verbs.stats import ParamStats, Stats

HEADS = ("name", "shape", "dtype", "NaN", "Inf", "zeros", "min", "mean", "max", "std", "values")
RIGHT = ("NaN", "Inf", "zeros", "min", "mean", "max", "std")
_BARS = " ▁▂▃▄▅▆▇█"
_ALIKE, _NOTHING = "all alike", "–"
_GAP = 2
_DROPPED = ("dtype", "shape", "zeros", "values", "mean", "Inf", "min", "max")  # in a narrow terminal, in turn
_LEAST_NAME = 24
_MOST_FINDINGS = 20


def lines(found: Stats, *, hints: bool = True) -> list[str]:
    """Return statistics as plain text, line by line."""
    shown = len(HEADS) - (not any(cells(row)[-1] for row in found))  # aggregates have no last column
    rows = [row[:shown] for row in (HEADS, *map(cells, found))]
    body = columns(rows, RIGHT) if len(rows) > 1 else []
    return [title(found), "", *body, *([""] if body else []), *foot(found, hints=hints)]


def title(found: Stats) -> str:
    """Return the line above the table."""
    return printable(found.source)


def cells(row: ParamStats) -> tuple[str, ...]:
    """Return the texts of a row, one for each of :data:`HEADS`."""
    name = _called(row.name)
    where = plural(row.params, "tensor") if row.shape is None else shape(row.shape)
    start = (name, where, printable(row.dtype))
    if row.problem is not None:
        return (*start, *[_NOTHING] * 7, f"not read: {printable(row.problem)}")
    if row.tied_with is not None:
        return (*start, *[_NOTHING] * 7, f"= {_called(row.tied_with)}")
    figures = (number(value) for value in (row.min, row.mean, row.max, row.std))
    return (*start, _count(row.nan), _count(row.inf), _share(row), *figures, spark(row.spark) or _alike(row))


def _called(name: str) -> str:
    """Return a name as it is shown: that of nothing is two quotes."""
    return printable(name) or '""'


def _count(value: int) -> str:
    return count(value) if value else "0"


def _share(row: ParamStats) -> str:
    """Return which part of all values is zero; neither all nor none unless it is so."""
    if not row.zeros:
        return "0"
    if row.zeros == row.size:
        return "100 %"
    part = 100 * row.zeros / row.size
    if part >= 99.5:
        return f"{min(part, 99.9):.1f} %"
    return f"{part:.0f} %" if part >= 1 else f"{part:.1g} %" if part >= 0.1 else "<0.1 %"


def _alike(row: ParamStats) -> str:
    return _ALIKE if row.min is not None and row.min == row.max else ""


def number(value: float | None) -> str:
    """Return a figure in three digits.

    >>> number(0.0), number(-0.04213), number(123456.0), number(None)
    ('0', '-0.0421', '1.23e+05', '–')
    """
    if value is None:
        return _NOTHING
    return f"{value:.3g}" if value else "0"


def spark(counts: Sequence[int]) -> str:
    """Return counts as a row of bars; the smallest count that is not zero has one, too.

    >>> spark((0, 1, 50, 100))
    ' ▁▄█'
    """
    most = max(counts, default=0)
    if not most:
        return ""
    steps = len(_BARS) - 1
    return "".join(_BARS[max(round(n / most * steps), 1) if n else 0] for n in counts)


def foot(found: Stats, *, hints: bool = False) -> list[str]:
    """Return what stands below the table: what was read, what is worth a look, and notes on the figures."""
    facts = [f"{found.read} of {found.names} read"]
    tied = sum(row.tied_with is not None for row in _of_names(found))
    if tied:
        facts.append(f"{plural(tied, 'name')} tied to another")
    for kind, names in found.hidden.items():
        hint = f" (--kind {kind})" if hints else ""
        facts.append(f"{plural(names, NOUNS[kind])} left out{hint}")
    text = [" · ".join(facts), *_notes(found)]
    if not found.findings:
        return [*text, "nothing that is worth a look was found"] if found.names else text
    text.append(f"{plural(len(found.findings), 'thing')} worth a look:")
    shown = found.findings[:_MOST_FINDINGS]
    text += [f"  {_called(finding.name)}: {printable(finding.text)}" for finding in shown]
    if more := len(found.findings) - len(shown):
        text.append(f"  … {more} more" + (" (--json has all)" if hints else ""))
    return text


def _of_names(found: Stats) -> Stats:
    """Return the table with a row for each name."""
    return found if found.whole is None else found.whole


def _notes(found: Stats) -> list[str]:
    """Say what the figures are of, where that is not the values themselves."""
    notes = []
    rows = _of_names(found).rows
    for of in dict.fromkeys(row.of for row in rows if row.of != "values"):
        names = [row for row in rows if row.of == of]
        dtypes = ", ".join(dict.fromkeys(printable(row.dtype) for row in names))
        notes.append(f"figures of {of}: {plural(len(names), 'tensor')} of {dtypes}")
    return notes


def one_line(found: Stats) -> str:
    """Return the repr.

    >>> one_line(stats)  # doctest: +SKIP
    '<Stats model.safetensors: 104 of 104 read, 2 things worth a look>'
    """
    source = printable(found.source.rpartition("/")[2])
    worth = f", {plural(len(found.findings), 'thing')} worth a look" if found.findings else ""
    groups = "" if found.grouped is None else f", a row for each {found.grouped}"
    return f"<Stats {source}: {found.read} of {found.names} read{groups}{worth}>"


def table(found: Stats, *, hints: bool = False) -> Screen:
    """Return statistics as something rich can print."""
    return Screen(found, hints)


class Screen:
    """Statistics that fit themselves to the width they are printed at."""

    def __init__(self, found: Stats, hints: bool) -> None:
        self._found, self._hints = found, hints

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        from rich.text import Text

        yield Text(title(self._found), "bold")
        if self._found.rows:
            yield Text()
            yield from _fitted(self._found, options.max_width)
        yield Text()
        for line in foot(self._found, hints=self._hints):
            yield Text(line, "yellow" if line.startswith("  ") or "worth a look:" in line else "dim")


def _fitted(found: Stats, width: int) -> Iterable[Any]:
    from rich.cells import cell_len
    from rich.text import Text

    from paratree.render.terminal import named, shortened

    texts = [HEADS, *map(cells, found)]
    shown = {head: [row[i] for row in texts] for i, head in enumerate(HEADS)}
    if not any(shown["values"][1:]):
        del shown["values"]
    widths = {head: max(map(cell_len, column)) for head, column in shown.items()}
    for head in _DROPPED:
        if (
            sum(widths.values()) - widths["name"] + min(widths["name"], _LEAST_NAME) + _GAP * len(widths)
            <= width
        ):
            break
        del widths[head]
    rest = sum(widths.values()) - widths["name"] + _GAP * len(widths)
    widths["name"] = max(min(widths["name"], width - rest), 8)
    for i, (above, name) in enumerate(named(shown["name"], widths["name"], width)):
        shown["name"][i] = name
        if above is not None:
            yield above
        line = Text("  ")
        for head, size in widths.items():
            text = shortened(shown[head][i], size)
            pad = " " * (size - cell_len(text))
            line.append(pad + text if head in RIGHT else text + pad, _style(head, text, i)).append(" " * _GAP)
        line.rstrip()
        yield line


def _style(head: str, text: str, row: int) -> str:
    if row == 0:
        return "dim"
    if head in ("NaN", "Inf") and text not in ("0", _NOTHING):
        return "bold red"
    return {"dtype": "green", "values": "cyan"}.get(head, "")


def html(found: Stats) -> str:
    """Return statistics as an HTML table for a notebook; every text is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells(row)) + "</tr>" for row in found
    )
    notes = "<br>".join(escape(line) for line in foot(found))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{notes}</p>"


def as_json(found: Stats) -> str:
    """Return one JSON document, a parameter on each line."""
    fields = {
        "schema": SCHEMA,
        "source": found.source,
        "by": found.grouped,
        "names": found.names,
        "read": found.read,
        "hidden": dict(found.hidden),
        "findings": [
            {field: plain(getattr(finding, field)) for field in ("name", "what", "text", "count", "index")}
            for finding in found.findings
        ],
    }
    return document(fields, "rows", [json.dumps(plain(row)) for row in found.to_dicts()])
