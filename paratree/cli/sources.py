"""What the user names as a source: a path, or code that makes a live model."""

from __future__ import annotations

import os
import sys

import paratree
from paratree.core.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.tree import ParamTree


def open_source(source: str) -> ParamTree:
    """Open a path, or the live model that ``package.module:callable`` makes when the user names it so."""
    found = path_or_tree(source)
    return paratree.open(found) if isinstance(found, str) else found


def path_or_tree(source: str) -> str | ParamTree:
    """Return a path as it is, or the tree of the live model that the code makes which the user names."""
    module, colon, name = source.partition(":")
    is_code = colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
    if not is_code or os.path.exists(source):  # noqa: PTH110 -- see files.local
        return source
    return _opened(_made(module, name), source)


def _opened(model: Any, place: str) -> ParamTree:
    """Open what the code at ``place`` made; the tree and its errors are called so."""
    try:
        tree = paratree.open(model)
    except paratree.UnknownSourceError as error:
        raise paratree.UnknownSourceError(f"{place}: {error}") from error
    tree.source = place
    return tree


def _made(module: str, name: str) -> Any:
    """Return what the callable of a module returns; what the code prints goes to stderr.

    Raises:
        UnknownSourceError: there is no such module or callable, or it raised.
    """
    from contextlib import redirect_stdout

    place = f"{printable(module)}:{printable(name)}"
    try:
        with redirect_stdout(sys.stderr):
            found = _found(module, name)
            return found() if callable(found) and (isinstance(found, type) or not _is_model(found)) else found
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise paratree.UnknownSourceError(
            f"{place}: it raised {kind}: {printable(str(error))}; --debug shows where"
        ) from error


def _found(module: str, name: str) -> Any:
    """Import a module, from the folder one is in, too, and return what it calls ``name``."""
    from importlib import import_module
    from operator import attrgetter

    sys.path.insert(0, os.getcwd())  # noqa: PTH109 -- as 'python -m' does
    return attrgetter(name)(import_module(module))


def _is_model(found: object) -> bool:
    from paratree.registry import find_framework

    try:
        find_framework(found)
    except paratree.UnknownSourceError:
        return False
    return True
