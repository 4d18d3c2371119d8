"""Plain text: aligned columns for pipes and files, one line for a repr, and the words of all renderers."""

from __future__ import annotations

from paratree.core.errors import printable
from paratree.core.names import BUFFER, OTHER, PARAMETER, STATE
from paratree.render.units import count, count_of, plural, shape, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paratree.core.totals import Total
    from paratree.core.tree import ParamTree
    from paratree.verbs.listing import Listing, Row

NOUNS = {PARAMETER: "parameter", BUFFER: "buffer", STATE: "optimizer state", OTHER: "other tensor"}
COLUMNS = ("name", "shape", "dtype", "params", "bytes", "tied with")
RIGHT = ("params", "bytes")
NONE = "–"  # counted in another row
_MOST_DTYPES = 4
_MOST_REASONS = 5
_WIDEST = 100  # a longer cell is printed whole, and does not widen its column


def one_line(tree: ParamTree) -> str:
    """Return the repr of a tree: what it is, how much, how much of it is tied.

    >>> one_line(tree)  # doctest: +SKIP
    '<ParamTree Sequential: 6 parameters, 121 values (2 of 8 names tied), float32>'
    """
    totals = tree.totals
    own = totals[PARAMETER]
    words = [plural(own.count, "parameter")]
    if own.names:
        tied = own.names - own.count
        ties = f" ({tied} of {own.names} names tied)" if tied else ""
        words.append(count_of(own.size, "value") + ties)
    words += [
        plural(totals[kind].count, NOUNS[kind]) for kind in NOUNS if kind != PARAMETER and totals[kind].names
    ]
    dtypes = dict.fromkeys(p.dtype for p in tree.values() if p.kind == PARAMETER or not own.names)
    words += [printable(dtype) for dtype in list(dtypes)[:_MOST_DTYPES]] + ["…"] * (
        len(dtypes) > _MOST_DTYPES
    )
    where = f" '{printable(tree.prefix)}'" if tree.prefix else ""
    return f"<ParamTree {printable(tree.source.rpartition('/')[2])}{where}: {', '.join(words)}>"


def title(listing: Listing) -> str:
    """Return the name of what is listed."""
    return printable(listing.source) + (f": {printable(listing.prefix)}" if listing.prefix else "")


def head(listing: Listing) -> list[str]:
    """Return what stands above the rows: format, number of tensors, totals, dtypes."""
    own = listing.totals[PARAMETER]
    selected = len(listing.params) < listing.of
    number = f"{listing.listed} of {listing.of} tensors" if selected else plural(listing.listed, "tensor")
    facts = [printable(listing.format), number]
    if own.names:
        tied = own.expanded_size != own.size
        expanded = f" ({count(own.expanded_size)} with ties expanded)" if tied else ""
        facts.append(count_of(own.size, "parameter") + expanded)
        expanded = f" ({size(own.expanded_nbytes)})" if own.expanded_nbytes != own.nbytes else ""
        facts.append(size(own.nbytes) + expanded)
    if own.unknown:
        facts.append(f"{own.unknown} of unknown size")
    if listing.dtypes:
        facts.append(_dtypes(listing.dtypes))
    return facts


def _dtypes(dtypes: Sequence[tuple[str, int]]) -> str:
    if len(dtypes) == 1:
        return printable(dtypes[0][0])
    words = [f"{printable(dtype)} ({number})" for dtype, number in dtypes[:_MOST_DTYPES]]
    return ", ".join(words + [f"{len(dtypes) - _MOST_DTYPES} more"] * (len(dtypes) > _MOST_DTYPES))


def foot(listing: Listing, *, hints: bool = False) -> list[str]:
    """Return what stands below the rows: coverage, ties, what is folded, hidden or not readable, notes.

    Args:
        listing: what was found.
        hints: whether to name the options of the command line that show more.
    """
    lines = [" · ".join(_coverage(listing, hints))]
    if beside := [_beside(kind, listing, hints) for kind in NOUNS if _is_beside(kind, listing)]:
        lines.append("beside the parameters: " + ", ".join(beside))
    for reason, number in listing.unreadable[:_MOST_REASONS]:
        lines.append(f"not readable: {plural(number, 'tensor')}: {printable(reason)}")
    if (more := len(listing.unreadable) - _MOST_REASONS) > 0:
        lines.append(f"not readable: {plural(more, 'more reason')}")
    values = [f"{printable(key)} = {printable(value)}" for key, value in listing.values]
    if listing.more_values:
        more = listing.more_values
        hint = " (--json has all)" if hints else ""
        values.append(f"… {more} more{hint}" if values else f"{plural(more, 'longer value')}{hint}")
    if values:
        lines.append("meta: " + ", ".join(values))
    return lines + [f"note: {printable(note)}" for note in listing.notes]


def _coverage(listing: Listing, hints: bool) -> list[str]:
    names = len(listing.params)
    bad = sum(number for _, number in listing.unreadable)
    folded = [row.tensors for row in listing.rows if row.shape is not None and row.tensors > 1]
    hidden = names - listing.listed
    facts = [f"{names - bad} of {names} readable" if names else "nothing to read"]
    if hidden:
        facts[0] += f", {hidden} of them hidden"
    facts.append(plural(len(listing.ties), "tied group") if listing.ties else "no ties")
    if listing.frozen:
        facts.append(f"{listing.frozen} frozen")
    if folded:
        hint = " (--all lists every tensor)" if hints else ""
        facts.append(f"{sum(folded)} tensors folded into {plural(len(folded), 'row')}{hint}")
    return facts


def _is_beside(kind: str, listing: Listing) -> bool:
    return kind != PARAMETER and listing.totals[kind].names > 0 and listing.totals[PARAMETER].names > 0


def _beside(kind: str, listing: Listing, hints: bool) -> str:
    total: Total = listing.totals[kind]
    hidden = " hidden" + (f" (--kind {kind})" if hints else "") if kind in listing.hidden else ""
    return f"{plural(total.names, NOUNS[kind])}, {size(total.nbytes)}{hidden}"


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts of a row, one for each of :data:`COLUMNS`."""
    times = f" ×{row.tensors}" if row.shape is not None and row.tensors > 1 else ""
    return (
        printable(row.name) + times,
        shape(row.shape) if row.shape is not None else _tensors(row),
        ", ".join(printable(dtype) for dtype in row.dtypes),
        _params(row),
        NONE if row.repeats else "?" if row.nbytes is None else size(row.nbytes),
        tied_with(row),
    )


def _tensors(row: Row) -> str:
    if row.blocks > 1:
        return f"{row.blocks} × {plural(row.tensors // row.blocks, 'tensor')}"
    return plural(row.tensors, "tensor")


def _params(row: Row) -> str:
    if row.repeats:
        return NONE
    if row.kind != PARAMETER:
        return row.kind
    return "?" if row.size is None else count(row.size)


def tied_with(row: Row) -> str:
    """Return the other names of the row's tied group, shortly."""
    if row.tie is None:
        return ""
    if row.tied_with is None:
        return "one another"
    return printable(row.tied_with) + (f" and {row.tied_more} more" if row.tied_more else "")


def lines(listing: Listing, *, hints: bool = True) -> list[str]:
    """Return a listing as plain text, line by line."""
    text = [f"{title(listing)}: {' · '.join(head(listing))}", ""]
    if listing.rows:
        shown = COLUMNS if listing.ties else COLUMNS[:-1]
        text += [*columns([shown, *[cells(row)[: len(shown)] for row in listing.rows]], RIGHT), ""]
    return text + foot(listing, hints=hints)


def columns(table: Sequence[Sequence[str]], right: Iterable[str] = ()) -> list[str]:
    """Return the rows of a table as aligned lines; its first row is the heads.

    Args:
        table: rows of cells, as many in each.
        right: heads of the columns that are aligned at the right.
    """
    turned = []
    for column in zip(*table, strict=True):
        texts = units_aligned(column) if column[0] in right else column
        widths = [_width(text) for text in texts]
        widest = max((width for width in widths if width <= _WIDEST), default=0)
        pads = [" " * (widest - width) for width in widths]
        turned.append(
            [pad + text for pad, text in zip(pads, texts, strict=True)]
            if column[0] in right
            else [text + pad for pad, text in zip(pads, texts, strict=True)]
        )
    return ["  ".join(row).rstrip() for row in zip(*turned, strict=True)]


def units_aligned(column: Sequence[str]) -> list[str]:
    """Pad the units of numbers, so that the digits stand below each other: ``384`` above ``1.5 k``."""
    units = [text.rpartition(" ")[2] if text[:1].isdecimal() and " " in text else "" for text in column]
    widest = max(map(len, units))
    return [
        text if not text[:1].isdecimal() or not widest else _padded(text, unit, widest)
        for text, unit in zip(column, units, strict=True)
    ]


def _padded(text: str, unit: str, widest: int) -> str:
    number = text.removesuffix(unit).rstrip()
    return f"{number} {unit:<{widest}}"


def _width(text: str) -> int:
    if text.isascii() or text.replace("×", "").isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
