"""What a pickle may name: inert markers, the value types that become plain values, and what is refused.

Nothing here looks a name up. A deny-list of dangerous functions would age; the rule is the other way
round: of the standard library, only the value types listed here may be called, and none is.
"""

from __future__ import annotations

import sys

from paratree.core.errors import printable
from paratree.files.local import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LARGEST_KEY = 1 << 60  # larger integers can be chosen to collide in a dictionary
_DEEPEST_KEY = 4


class Global:
    """A name that a pickle refers to: ``module.name``, never looked up."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __repr__(self) -> str:
        return printable(f"{self.module}.{self.name}"[:200])


class Opaque:
    """What a pickle would have built: never built, only described.

    Attributes:
        target: the class or function that would have been called.
        args: what with.
        state: what ``BUILD`` would have set, usually a dictionary of attributes.
        entries: values that would have been appended.
        pairs: keys and values that would have been set.
    """

    __slots__ = ("args", "entries", "pairs", "state", "target")

    def __init__(self, target: Global, args: Any = ()) -> None:
        self.target, self.args = target, args
        self.state: Any = None
        self.entries: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []

    def __repr__(self) -> str:
        args = self.args if isinstance(self.args, tuple) else ()
        plain = args and all(part is None or isinstance(part, str | int | float) for part in args)
        shown = f"({', '.join(printable(repr(part)[:60]) for part in args[:8])})" if plain else ""
        return f"<{self.target!r}{shown}, not built>"


def key_of(value: Any, depth: int = 0) -> Any:
    """Return a dictionary key, after looking that hashing it is harmless: no depth, no chosen collisions."""
    if isinstance(value, tuple):
        if depth > _DEEPEST_KEY:
            raise ValueError("a dictionary key nests too deep")
        for part in value:
            key_of(part, depth + 1)
    elif isinstance(value, int) and abs(value) > _LARGEST_KEY:
        raise ValueError("a dictionary key is an integer of over 60 bits")
    elif isinstance(value, list | dict | set):
        raise TypeError(f"a dictionary key is a {type(value).__name__}")
    return value


def _sequence(args: tuple[Any, ...]) -> list[Any]:
    """Return the one iterable argument as a list; never one that only claims a length, as a range does."""
    if not args:
        return []
    if isinstance(args[0], list | tuple | set | frozenset | dict):
        return list(args[0])
    raise TypeError("a container is made of something else than a container")


def _mapping(args: tuple[Any, ...]) -> Any:
    found = args[-1] if args else {}
    if isinstance(found, dict):
        return dict(found)
    if isinstance(found, list | tuple):
        return {key_of(key): value for key, value in found}
    return {}


def _encode(args: tuple[Any, ...]) -> Any:
    match args:
        case (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1")
        case (str(text),) | (str(text), "utf-8" | "utf8"):
            return text.encode("utf-8", "surrogatepass")
    return NotImplemented


def _attribute(args: tuple[Any, ...]) -> Any:
    """``getattr`` names a nested class or a method; the name is kept, nothing is looked up."""
    match args:
        case (Global() as owner, str(name)):
            return Global(owner.module, f"{owner.name}.{name}")
        case (Opaque() | None, str()):
            return Opaque(Global("builtins", "getattr"), args)
    return NotImplemented


def _bytes(args: tuple[Any, ...]) -> Any:
    return args[0] if args and isinstance(args[0], bytes | Window) else (b"" if not args else NotImplemented)


def _reconstructor(args: tuple[Any, ...]) -> Any:
    """``copyreg._reconstructor(cls, base, state)`` makes a ``cls`` with the contents of ``base``."""
    if len(args) != 3 or not isinstance(args[0], Global) or not is_inert(args[0]):
        return NotImplemented
    target, _, contents = args
    made = Opaque(target, contents if isinstance(contents, tuple) else ())
    if isinstance(contents, dict):
        made.pairs = list(contents.items())
    elif contents is not None and not isinstance(contents, tuple):
        made.entries = list(contents) if isinstance(contents, list) else [contents]
    return made


def _new_object(args: tuple[Any, ...]) -> Any:
    """``copyreg.__newobj__(cls, *args)`` makes an instance of ``cls``."""
    if args and isinstance(args[0], Global) and is_inert(args[0]):
        return Opaque(args[0], args[1:])
    return NotImplemented


VALUES: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
    ("collections", "OrderedDict"): _mapping, ("collections", "Counter"): _mapping,
    ("collections", "defaultdict"): lambda args: {}, ("builtins", "dict"): _mapping,
    ("builtins", "list"): _sequence, ("collections", "deque"): _sequence,
    ("builtins", "tuple"): lambda args: tuple(_sequence(args)),
    ("builtins", "set"): lambda args: {key_of(v) for v in _sequence(args)},
    ("builtins", "frozenset"): lambda args: frozenset(key_of(v) for v in _sequence(args)),
    ("builtins", "complex"): lambda args: complex(*(float(v) for v in args)),
    ("builtins", "float"): lambda args: float(*args),
    ("builtins", "bool"): lambda args: bool(args and args[0]),
    ("builtins", "bytes"): _bytes, ("builtins", "bytearray"): _bytes,
    ("builtins", "getattr"): _attribute, ("_codecs", "encode"): _encode,
    ("copyreg", "_reconstructor"): _reconstructor, ("copyreg", "__newobj__"): _new_object,
}  # fmt: skip
MODERN = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins"}  # Python 2 names

_INERT = {  # value types of the standard library that stay opaque; "*" is every name of the module
    "argparse": {"Namespace"}, "types": {"SimpleNamespace"}, "functools": {"partial"},
    "builtins": {"object", "slice", "range", "xrange", "getattr"},
    "datetime": {"*"}, "decimal": {"Decimal"}, "fractions": {"Fraction"}, "uuid": {"UUID"}, "pathlib": {"*"},
    "collections": {"UserDict", "UserList", "ChainMap"}, "enum": {"*"}, "random": {"Random"},
    "logging": {"Logger", "getLogger"}, "re": {"_compile"}, "string": {"Template"},
    "operator": {"attrgetter", "itemgetter"}, "dataclasses": {"Field"}, "ipaddress": {"*"},
    "time": {"struct_time"},
    "array": {"_array_reconstructor", "array"}, "itertools": {"count", "chain", "repeat", "cycle"},
}  # fmt: skip
_GONE = frozenset({  # of the standard library, though not of every Python's from 2.7 on
    "__builtin__", "_aix_support", "asynchat", "asyncore", "cPickle", "cgitb", "commands", "copy_reg",
    "distutils", "exceptions", "imp", "lib2to3", "msilib", "new", "nntplib", "os2", "popen2", "smtpd",
    "telnetlib", "urllib2",
})  # fmt: skip


def is_inert(target: Global) -> bool:
    """Tell whether a call of ``target`` may be described and left: not code of the standard library."""
    module = MODERN.get(target.module, target.module)
    root = module.partition(".")[0]
    if root not in sys.stdlib_module_names and root not in _GONE:
        return True
    allowed = _INERT.get(module, set())
    if module == "builtins" and target.name.endswith(("Error", "Exception", "Warning")):
        return True
    return "*" in allowed or target.name in allowed
