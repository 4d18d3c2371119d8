"""Numbers as people read them: SI prefixes, three figures at most before the unit."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.core.array import Shape

_OF_COUNTS = ("", "k", "M", "B", "T")  # the field says "7 B parameters", not "7 G"
_OF_BYTES = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB")


def count(number: int) -> str:
    """Return a number of values.

    >>> count(384), count(1536), count(147456), count(22713728), count(6738415616)
    ('384', '1.5 k', '147 k', '22.7 M', '6.7 B')
    """
    return _scaled(number, _OF_COUNTS)


def size(nbytes: int) -> str:
    """Return a number of bytes.

    >>> size(44), size(1536), size(90851332)
    ('44 B', '1.5 kB', '90.9 MB')
    """
    return _scaled(nbytes, _OF_BYTES)


def _scaled(number: int, units: tuple[str, ...]) -> str:
    if number < 1000:
        return f"{number} {units[0]}".rstrip()
    value, step = number / 1000, 1
    while value >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.{1 if value < 99.95 else 0}f} {units[step]}"


def shape(lengths: Shape) -> str:
    """Return a shape; a length that is not known yet is a question mark.

    >>> shape((30522, 384)), shape((None, 4)), shape(())
    ('30522 × 384', '? × 4', 'scalar')
    """
    return " × ".join(["?" if n is None else str(n) for n in lengths]) or "scalar"


def plural(number: int, noun: str) -> str:
    """Return a number of things.

    >>> plural(1, "tensor"), plural(104, "tensor")
    ('1 tensor', '104 tensors')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def count_of(number: int, noun: str) -> str:
    """Return a possibly large number of things.

    >>> count_of(22713728, "parameter")
    '22.7 M parameters'
    """
    return plural(number, noun).replace(str(number), count(number), 1)
