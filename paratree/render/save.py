"""What was written: a line, what one should know, JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.render.json import SCHEMA
from paratree.render.units import plural, size

if TYPE_CHECKING:
    from paratree.verbs.save import Saved


def lines(found: Saved) -> list[str]:
    """Return what was written, and a line for each note."""
    words = [found.format, plural(found.names, "tensor"), size(found.nbytes)]
    if found.files and found.files[-1] == found.path:
        words.insert(1, plural(len(found.files) - 1, "shard"))
    elif found.files:
        words.insert(1, plural(len(found.files), "file"))
    if found.ties:
        words.append(plural(len(found.ties), "tied group"))
    if found.verified:
        words.append("read again and compared")
    if found.dry_run:
        words.append("not written (--dry-run)")
    return [
        f"{printable(found.path)}: {' · '.join(words)}",
        *(f"note: {printable(note)}" for note in found.notes),
    ]


def as_json(found: Saved) -> str:
    """Return a JSON document."""
    return json.dumps({"schema": SCHEMA, **asdict(found)}, indent=2) + "\n"
