"""Plain text of the smaller results: values, ties, formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.text import columns
from paratree.render.units import count_of, plural, shape, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.verbs.formats import FormatFacts
    from paratree.verbs.get import Values
    from paratree.verbs.ties import TiedGroup, Ties

FORMAT_HEADS = ("NAME", "SUFFIXES", "READS", "LAZY", "TIES", "WRITES AS", "NEEDS")


def values(found: Values, *, width: int = 80) -> list[str]:
    """Return a line that says what the values are, and NumPy's own text of them."""
    import numpy as np

    return [values_head(found), np.array2string(found.values, max_line_width=width, separator=" ")]


def values_head(found: Values) -> str:
    """Return what the values are, in a line."""
    param = found.param
    words = [f"{printable(param.name)}: {shape(param.shape)} {printable(param.dtype)}"]
    if found.values.shape != param.shape:
        words.append(f"a part of shape {shape(found.values.shape)}")
    if found.dtype != param.dtype:
        words.append(f"as {found.dtype}")
    words += [count_of(found.values.size, "value"), size(found.values.nbytes)]
    return " · ".join(words)


def ties(found: Ties) -> list[str]:
    """Return the tied groups: what each is, and below it its names."""
    if not found.groups:
        return [f"{printable(found.source)}: no ties"]
    lines = [f"{printable(found.source)}: {plural(len(found.groups), 'tied group')}{_saved(found.groups)}"]
    for number, group in enumerate(found.groups, 1):
        lines += ["", f"{number}  {shape(group.shape)} {printable(group.dtype)} · {_bytes(group)}"]
        lines += [f"   {printable(name)}" for name in group.names]
    return lines


def _saved(groups: Sequence[TiedGroup]) -> str:
    known = [group for group in groups if group.nbytes is not None and group.expanded_nbytes is not None]
    once = sum(group.nbytes or 0 for group in known)
    expanded = sum(group.expanded_nbytes or 0 for group in known)
    return f" · {size(once)} instead of {size(expanded)}" if len(known) > 1 else ""


def _bytes(group: TiedGroup) -> str:
    if group.nbytes is None or group.expanded_nbytes is None:
        return "of unknown size"
    return f"{size(group.nbytes)} once, {size(group.expanded_nbytes)} expanded"


def formats(found: Sequence[FormatFacts]) -> list[str]:
    """Return a table of formats."""
    return columns([FORMAT_HEADS, *map(format_cells, found)])


def format_cells(facts: FormatFacts) -> tuple[str, ...]:
    """Return the texts of a format, one for each of :data:`FORMAT_HEADS`."""
    writes, needs = facts.option or ("yes" if facts.writes else "no"), facts.extra or "-"
    suffixes = " ".join(facts.suffixes) or "a folder"
    cells = (facts.name, suffixes, facts.reads, facts.lazy, facts.ties, writes, needs)
    return tuple(map(printable, cells))
