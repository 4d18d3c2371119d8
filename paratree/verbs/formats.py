"""Which file formats are read, and how well."""

from __future__ import annotations

from dataclasses import dataclass

from paratree.registry import known_formats


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """What paratree can do with one file format.

    Attributes:
        name: name of the format, as ``show`` says it.
        suffixes: what its files end in; the bytes decide, not the suffix.
        reads: what is read.
        lazy: whether one tensor can be read without the others.
        ties: how the format records ties.
        writes: whether paratree writes it.
        extra: the extra of ``pip install 'paratree[…]'`` that it needs, or ``None``.
        option: what ``--format``, or ``format=`` of ``save``, calls it; ``None`` if it is only read.
    """

    name: str
    suffixes: tuple[str, ...]
    reads: str
    lazy: str
    ties: str
    writes: bool = False
    extra: str | None = None
    option: str | None = None


def formats() -> tuple[FormatFacts, ...]:
    """Return what every known format can do, in the order of their names.

    Example:
        >>> [facts.name for facts in formats() if ".safetensors" in facts.suffixes]
        ['safetensors']
    """
    known = (
        FormatFacts(
            module.NAME,
            tuple(module.SUFFIXES),
            module.READS,
            module.LAZY,
            module.TIES,
            bool(module.WRITES),
            module.EXTRA,
            key if module.WRITES else None,
        )
        for key, module in known_formats().items()
    )
    return tuple(sorted(known, key=lambda facts: facts.name.casefold()))
