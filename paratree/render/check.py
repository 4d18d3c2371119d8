"""What a check found: a line for each failure, a verdict, JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.json import SCHEMA, document, plain
from paratree.render.units import plural

if TYPE_CHECKING:
    from paratree.verbs.check import Check


_FIELDS = ("name", "fact", "count", "index", "bound", "found")


def lines(found: Check, *, fingerprint: bool = False) -> list[str]:
    """Return the hash of the source if it is asked for, and a line for each failure."""
    text = []
    if fingerprint and found.fingerprint is not None and found.fingerprint.hash is not None:
        text.append(f"{found.fingerprint.hash}  {printable(found.source)}")
    for failure in found.failures:
        name = option(failure.rule) if failure.name is None else printable(failure.name) or '""'
        text.append(f"{name}: {printable(failure.fact)}")
    return text


def option(rule: str) -> str:
    """Return a rule as the command line calls it.

    >>> option("no_nan")
    'no-nan'
    """
    return rule.replace("_", "-")


def verdict(found: Check) -> str:
    """Return what came out, in a line."""
    failed = {failure.rule for failure in found.failures}
    words = [f"{option(rule)} {'failed' if rule in failed else 'passed'}" for rule in found.rules]
    return f"{printable(found.source)}: {', '.join(words)} ({plural(found.tensors, 'tensor')})"


def messages(found: Check) -> list[str]:
    """Return what to try, if something is known, and what came out."""
    return [*([] if found.hint is None else [found.hint]), verdict(found)]


def as_json(found: Check) -> str:
    """Return a JSON document, the failures a line each."""
    hashes = found.fingerprint
    fields = {
        "schema": SCHEMA,
        "source": found.source,
        "passed": found.passed,
        "tensors": found.tensors,
        "rules": [option(rule) for rule in found.rules],
        "numbers": {option(rule): number for rule, number in found.numbers.items()},
        "hint": found.hint,
        "fingerprint": None if hashes is None else hashes.hash,
        "hashes": None if hashes is None else {name: one.hash for name, one in hashes.params.items()},
    }
    rows = [
        {"rule": option(failure.rule)} | {field: plain(getattr(failure, field)) for field in _FIELDS}
        for failure in found.failures
    ]
    return document(fields, "failures", map(json.dumps, rows))
