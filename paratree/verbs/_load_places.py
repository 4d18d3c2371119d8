"""Places of a source that would fill a model alike, as ``model.`` and ``ema.``: which to propose first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paratree.verbs._axes import shapes_fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from paratree.core.tree import ParamTree

_MOST_PLACES = 4  # that are named
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
PLAIN = re.compile(r"[\w./-]+")  # of a name that a selector takes as it is
_OF_MODELS = frozenset({"model", "module", "net", "network", "state"})
_OF_AVERAGES = frozenset({"ema", "swa", "average", "averaged", "avg", "shadow"})


def places_alike(
    source: ParamTree, model: ParamTree, pairs: Sequence[tuple[str, str]], first: str
) -> list[str]:
    """Return what begins the names of every place that fills the same names of the model as ``first`` does.

    Those that are called like a model come first, and those of averaged weights last.

    Args:
        source: the source.
        model: the part of the model that is filled.
        pairs: names of the source, which all begin with ``first``, and of the model.
        first: what is taken from them.
    """
    ends = {name[len(first) :]: other for name, other in pairs}
    tail = next(iter(ends))
    starts = dict.fromkeys(name.removesuffix(tail) for name in source if name.endswith(tail))
    alike = [
        start
        for start in starts
        if start == first
        or (start.endswith((".", "/")) and PLAIN.fullmatch(start) and _fills(source, model, start, ends))
    ]
    return sorted(alike, key=_rank)


def _fills(source: ParamTree, model: ParamTree, start: str, ends: Mapping[str, str]) -> bool:
    names = [start + end for end in ends]
    return source.keys() >= {*names} and all(
        shapes_fit(source[name], model[other]) for name, other in zip(names, ends.values(), strict=True)
    )


def _rank(start: str) -> int:
    """Return 0 for what is called like a model, 2 for averaged weights, 1 for all else.

    >>> [_rank(start) for start in ("state_dict.", "generator.", "model_ema.", "EMA.")]
    [0, 1, 2, 2]
    """
    words = {word.lower() for word in _WORD.findall(start)}
    if words & _OF_AVERAGES:
        return 2
    return 0 if words & _OF_MODELS else 1


def in_words(choices: Iterable[tuple[str, Mapping[str, object]]]) -> str:
    """Return options, one of several by place, as one writes them; the averages are called so.

    They are to be pasted: ``repr`` escapes what a terminal could act on.
    """
    listed = [*choices]
    said = [
        "for the averaged weights (EMA) " * (len(listed) > 1 and _rank(place) > 1)
        + "with "
        + ", ".join(f"{option}={value!r}" for option, value in options.items() if value)
        for place, options in listed[:_MOST_PLACES]
    ]
    more = len(listed) - len(said)
    return "; or ".join([*said, *[f"of {more} more places alike"] * bool(more)])
