"""What a verification found: a line for each failure, what came out, JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.json import SCHEMA, document
from paratree.render.units import plural, size

if TYPE_CHECKING:
    from paratree.verbs.manifest import Manifest
    from paratree.verbs.verify import Verification

_FIELDS = ("what", "name", "text", "start", "stop", "names")


def written(found: Manifest, path: str) -> str:
    """Return what was written, in a line."""
    nbytes = sum(one.nbytes for one in found.params.values())
    words = [f"manifest of {plural(len(found.params), 'tensor')}", size(nbytes)]
    return f"{printable(path)}: {' · '.join(words)}"


def lines(found: Verification) -> list[str]:
    """Return a line for each failure."""
    return [str(failure) for failure in found.failures]


def messages(found: Verification) -> list[str]:
    """Return what one should know, and what came out."""
    words = [f"{found.intact} of {plural(found.tensors, 'tensor')} intact", f"{size(found.nbytes)} read"]
    if found.failures:
        words.append(plural(len(found.failures), "failure"))
    return [
        *(f"note: {printable(note)}" for note in found.notes),
        f"{printable(found.source)}: {' · '.join(words)}",
    ]


def as_json(found: Verification) -> str:
    """Return a JSON document, the failures a line each."""
    fields = {
        "schema": SCHEMA,
        "source": found.source,
        "passed": found.passed,
        "tensors": found.tensors,
        "intact": found.intact,
        "nbytes": found.nbytes,
        "notes": found.notes,
    }
    rows = [
        {field: getattr(failure, field) for field in _FIELDS}
        | {"places": [place._asdict() for place in failure.places]}
        for failure in found.failures
    ]
    return document(fields, "failures", map(json.dumps, rows))
