"""JSON from a file: an object, without duplicate keys, or one clear error."""

from __future__ import annotations

import json

from paratree.core.errors import CorruptFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.files.local import Source


def parse_object(source: Source, data: bytes, offset: int = 0, member: str | None = None) -> dict[str, Any]:
    """Return the JSON object in ``data``, which was read at ``offset`` of ``source``.

    Raises:
        CorruptFileError: it is not UTF-8, not JSON, not an object, nests too deep, or a key stands twice.
    """

    def fault(reason: str, place: int = 0) -> CorruptFileError:
        return CorruptFileError(source.path, reason, offset=offset + place, member=member)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise fault(f"the key '{twice[:200]}' stands twice")
        return found

    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise fault("this byte is not UTF-8", error.start) from None
    except json.JSONDecodeError as error:
        raise fault(
            f"this is not JSON: {error.msg}", len(text[: error.pos].encode("utf-8", "replace"))
        ) from None
    except CorruptFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise fault(f"this JSON cannot be taken: {error}") from None
    if not isinstance(value, dict):
        raise fault("this JSON is not an object")
    return value
