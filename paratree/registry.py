"""Find who can open a source, importing no framework that the user has not imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from io import IOBase

from paratree.core.errors import (
    CorruptFileError,
    MismatchError,
    SourceNotFoundError,
    UnknownSourceError,
    UnsupportedError,
    printable,
)
from paratree.files.folder import folder_entries, latest_entries
from paratree.files.local import LocalFile
from paratree.files.zip import archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.plugin import Format, Framework
    from paratree.core.tree import ParamTree


def open(source: object, *, grads: object = None) -> ParamTree:
    """Open a live model, a checkpoint file or a folder of one as a parameter tree.

    Names, shapes and dtypes are read; values wait until asked for. Nothing from a file is executed,
    no framework is imported, nothing is looked up online.

    Args:
        source: a live object of a framework that has a module in ``paratree/frameworks``, or a path.
        grads: for a live object, gradients that are held outside it (JAX, TensorFlow, Keras), in the
            structure in which the framework gives them; they become the ``grad`` of the parameters.

    Returns:
        The tree; close it, or use it in a ``with`` statement, to close its files early.

    Raises:
        SourceNotFoundError: the path does not exist.
        UnknownSourceError: nothing recognises the source.
        CorruptFileError: the file contradicts itself.
        UnsafeFileError: reading the file would have to execute code.
        MismatchError: ``grads`` are not of the structure of the source; it names the first path.

    Example:
        >>> tree = paratree.open("model.safetensors")  # doctest: +SKIP
        >>> tree["encoder.0.weight"].shape  # doctest: +SKIP
        (384, 384)
    """
    if isinstance(source, Iterator) and not isinstance(source, IOBase):  # as net.named_parameters()
        source = list(source)
    if isinstance(source, str | os.PathLike):
        if grads is not None:
            raise MismatchError(f"{printable(os.fspath(source))}: a file has no gradients; give a live model")
        return _open_path(os.fspath(source))
    try:
        return find_framework(source).open(source, grads=grads)
    except RecursionError:
        kind = type(source).__name__
        raise UnknownSourceError(
            f"a {kind} that holds itself, or nests too deep; give what has the model"
        ) from None


def _open_path(path: str) -> ParamTree:
    if not path:
        raise SourceNotFoundError("'' is no path; give a file or a folder")
    for _ in range(_RETRIES):
        file = LocalFile(_file_of(path))
        try:
            return _opened(file)
        except (CorruptFileError, SourceNotFoundError):
            if not file.is_replaced:
                raise
            file.close()
    return _opened(LocalFile(_file_of(path)))


def _opened(file: LocalFile) -> ParamTree:
    tree = find_format(file).open(file)
    tree.files = file.named
    return tree


def _file_of(path: str) -> str:
    """Return the file to open for a path, which may be a folder."""
    if os.path.isdir(path):  # noqa: PTH112 -- pathlib costs the command line a fifth of its start
        path = entry_of(path)
    return _index_of(path)


def _index_of(path: str) -> str:
    """Return the index of a TensorFlow checkpoint for its prefix or one of its shards, else the path."""
    prefix, shard, _ = path.rpartition(".data-")
    index = (prefix if shard else path) + ".index"
    named = bool(shard) or not os.path.exists(path)  # noqa: PTH110
    return index if named and os.path.isfile(index) else path  # noqa: PTH113


def entry_of(folder: str) -> str:
    """Return the file that stands for a folder: an index, or the one file of weights in it.

    Of numbered steps it is the last.

    Raises:
        UnknownSourceError: there is none, or several with equal right.
    """
    found = _entry(folder, _IN_FOLDER)
    if found is None:
        others = _third_party("paratree.formats", _names("formats")).values()
        found = _entry(folder, tuple(pattern for module in others for pattern in module.FOLDER))
    if found is None:
        raise UnknownSourceError(f"{printable(folder)}: {_unknown_folder(folder)}")
    return found


def _unknown_folder(folder: str) -> str:
    """Say why no file stands for a folder, and what to do."""
    if folder_entries(folder, ("*.distcp",)):
        return "shards of PyTorch DCP without .metadata, which says what is in them; fetch it, too"
    return "no checkpoint in this folder; name a file"


def _entry(folder: str, every: tuple[str, ...]) -> str | None:
    """Return the file that fits one of the patterns, the most telling first; of several, refuse to choose."""
    numbered = tuple(p for p in every if "#" in p)
    patterns = [p for p in every if p not in numbered]
    if found := folder_entries(folder, tuple(p for p in patterns if "*" not in p)):
        return found[0]
    first_parts = tuple(p for p in patterns if "-00001-of-" in p)
    stages = [tuple(p for p in patterns if p.endswith(".json")), first_parts, tuple(patterns)]
    for stage in (*stages, numbered):
        entries = latest_entries if stage is numbered else folder_entries
        found = list(dict.fromkeys(entries(folder, stage)))
        if len(found) == 1:
            if stage != first_parts:
                _refuse_lone_shard(folder, found[0])
            return found[0]
        if found:
            names = ", ".join(printable(os.path.relpath(f, folder)) for f in found[:5])
            raise UnknownSourceError(
                f"{printable(folder)}: {len(found)} files could be meant ({names}); name one"
            )
    return None


def _refuse_lone_shard(folder: str, path: str) -> None:
    """Look that the one file of a folder does not say of itself that it is a part of a whole."""
    name, _, suffix = os.path.basename(path).rpartition(".")  # noqa: PTH119
    _, _, count = name.rpartition("-of-")
    if suffix in ("safetensors", "bin") and count.isdecimal() and int(count) > 1:
        fact = f"{printable(os.path.basename(path))} is one of {int(count)} shards"  # noqa: PTH119
        raise UnknownSourceError(
            f"{printable(folder)}: {fact}; fetch the others and their index, or name that file"
        )


_RETRIES = 3  # of opening what is replaced meanwhile, file by file
_IN_FOLDER = (  # FOLDER of every format, so that none need be imported; of two names the better first
    "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin",
    "model.weights.h5", "flax_model.msgpack", "model.onnx", "inference.pdiparams", "saved_model.pb",
    ".metadata", "_METADATA", "_CHECKPOINT_METADATA", "checkpoint",
    "*.safetensors.index.json", "shard-00001-model-00001-of-*.safetensors", "*.safetensors",
    "*.bin.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.index", "*.weights.json", "*.weights.h5",
    "*.keras", "*.h5", "*.hdf5", "*.msgpack", "*.eqx", "*.onnx", "*-00001-of-*.gguf", "*.gguf", "*.npz",
    "*.npy", "*.params", "*.pdiparams", "*.pdparams",
    "#/_METADATA", "#/_CHECKPOINT_METADATA", "checkpoint_#",
)  # fmt: skip


def find_format(file: LocalFile) -> Format:
    """Return the format that recognises the file by its bytes; its suffix only says whom to ask first.

    Raises:
        UnknownSourceError: none does.
    """
    for name in _by_likelihood(file):
        if (module := _built_in("formats", name)).sniff(file):
            return module  # type: ignore[no-any-return]
    for module in _third_party("paratree.formats", _names("formats")).values():
        if module.sniff(file):
            return module  # type: ignore[no-any-return]
    raise UnknownSourceError(f"{printable(file.path)}: {_unknown(file)}")


def _by_likelihood(file: LocalFile) -> tuple[str, ...]:
    """Return the formats in the order in which to ask them: each of them has to be imported for that."""
    suffix = file.path.rpartition(".")[2].lower()
    likely = [_OF_SUFFIX[suffix]] if suffix in _OF_SUFFIX else []
    for place, start, names in _OF_START:
        if file.head.startswith(start, place):
            likely += names
    return tuple(dict.fromkeys([*likely, *_names("formats")]))


_OF_START = (  # place, bytes there, and the formats that have them: the next to be asked
    (0, b"PK", ("torch", "numpy", "keras")),
    (0, b"\x80", ("torch", "paddle", "pickle", "dcp")),
    (0, b"\x89HDF", ("keras",)),
    (0, b"\x93NUMPY", ("numpy", "equinox")),
    (0, b"GGUF", ("gguf",)),
    (0, b"{", ("safetensors", "keras", "torch")),
    (0, b"\x12\x01" + bytes(6), ("mxnet",)),
    (0, b"\x08\x01\x12", ("tensorflow",)),
    (0, b"\x08", ("onnx",)),
    (0, bytes(12), ("paddle",)),
    (0, b"model_checkpoint_path", ("tensorflow",)),
    (8, b"{", ("safetensors",)),
    (257, b"ustar", ("torch_tar",)),
)
_OF_SUFFIX = {  # suffix -> the format that is asked, or written, first: the others need not be imported
    "bin": "torch", "ckpt": "torch", "eqx": "equinox", "gguf": "gguf", "h5": "keras", "hdf5": "keras",
    "index": "tensorflow", "pb": "tensorflow",
    "jit": "torch", "keras": "keras", "onnx": "onnx",
    "msgpack": "flax",
    "npy": "numpy", "npz": "numpy", "pt": "torch", "pt2": "torch", "pth": "torch",
    "safetensors": "safetensors",
    "tar": "torch",
    "pdiparams": "paddle", "pdopt": "paddle", "pdparams": "paddle",
    "joblib": "pickle", "p": "pickle", "pickle": "pickle", "pkl": "pickle", "states": "pickle",
    "distcp": "dcp", "metadata": "dcp", "params": "mxnet",
}  # fmt: skip


def _unknown(file: LocalFile) -> str:
    """Say what a file of no known format is, as far as its bytes and name tell, and what to do."""
    from paratree.files.compressed import advice, compression
    from paratree.files.tar import first_name

    if not file.size:
        return "an empty file; fetch it again"
    if (members := archive(file)) is not None:
        return _unknown_archive("zip", sorted(members))
    if (engine := compression(file.head)) is not None:
        return f"it is compressed with {engine}; {advice(file.path, engine)}"
    if file.head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it points to; run 'git lfs pull'"
    if file.head.lstrip()[:1] == b"<":
        return "a web page or other markup, not weights; fetch the file itself"
    if (first := first_name(file)) is not None:
        return _unknown_archive("tar", [first])
    return next((fact for ending, fact in _COMPANIONS if file.path.endswith(ending)), _unknown_start(file))


def _unknown_start(file: LocalFile) -> str:
    start = printable(repr(file.head[:8]))[1:]
    named = next((m.NAME for m in known_formats().values() if file.path.endswith(m.SUFFIXES)), None)
    if named is None:
        return f"begins with {start}, which no format known does; see 'paratree formats'"
    return f"begins with {start}, as no {named} file does; fetch it again"


def _unknown_archive(kind: str, names: list[str]) -> str:
    """Say what an archive is that is no checkpoint itself: one that holds checkpoints, or what is missing."""
    if "serialized_state_dict.pt" in names:
        return "a program that torch.export saved before torch 2.8; unpack it, open serialized_state_dict.pt"
    endings = tuple(f".{suffix}" for suffix in _OF_SUFFIX if suffix not in ("npy", "p", "index"))
    if found := next((name for name in names if name.endswith(endings)), None):
        return f"a {kind} archive that holds {printable(found)}; unpack it and open that"
    if kind == "tar":
        return "a tar archive; unpack it and open what is inside"
    return "a zip archive without data.pkl, model.weights.h5 or .npy; if a save failed, save it again"


_COMPANIONS = (  # how files end that lie beside weights and hold none, and which file to open
    ("-symbol.json", "the graph of an MXNet model, without weights; open the .params file beside it"),
    (".pdmodel", "the program of a Paddle model, without weights; open the .pdiparams file beside it"),
    ("manifest.ocdbt", "the database inside an Orbax checkpoint; open the folder that _METADATA is in"),
    ("config.json", "a configuration, without weights; open its folder"),
)


def format_to_write(path: str, name: str | None = None) -> Format:
    """Return the format that writes a file, by its suffix or what is given: the name, of files a suffix, too.

    Raises:
        UnsupportedError: there is none that is written.
    """
    first = _OF_SUFFIX.get(path.rpartition(".")[2])
    if name is None and first is not None and _writes(module := _built_in("formats", first), path):
        return module  # type: ignore[no-any-return]
    every = {key: module for key, module in known_formats().items() if module.WRITES}
    if name is not None:
        known = {suffix[1:]: module for suffix, module in _suffixes(every).items()}
        known |= {module.NAME.casefold(): module for module in every.values()} | every
        if (wanted := name.casefold().removeprefix(".")) not in known:
            raise UnsupportedError(f"'{printable(name)}' is no format that is written: {', '.join(every)}")
        return known[wanted]
    suffixes = _suffixes(every)
    fitting = [suffix for suffix in suffixes if path.endswith(suffix) and not suffix.endswith(".json")]
    if not fitting:
        raise UnsupportedError(
            f"{printable(path)}: its suffix is of no format that is written; name one: {', '.join(every)}"
        )
    return suffixes[max(fitting, key=len)]


def _suffixes(every: dict[str, Format]) -> dict[str, Format]:
    """Return the formats of files by their suffixes."""
    of_files = [module for module in every.values() if module.MAKES != "folder"]
    return {suffix: module for module in of_files for suffix in module.SUFFIXES}


def _writes(module: Format, path: str) -> bool:
    return bool(module.WRITES) and module.MAKES != "folder" and path.endswith(module.SUFFIXES)


def find_framework(source: object) -> Framework:
    """Return the framework of a live object, found by the packages of its class and base classes.

    A dict, list or other plain container belongs to the framework of the first object in it that has one.
    A class of no framework may be registered with one that the user has imported, as a pytree of JAX. Arrays
    of NumPy in plain containers belong to such a one, too, if it takes them; else to our module for NumPy.

    Raises:
        UnknownSourceError: none is known for it.
    """
    kind = type(source)
    if kind.__module__.startswith("paratree.core.") and (advice := _ADVICE.get(kind.__name__)):
        raise UnknownSourceError(f"a {kind.__name__} is no source: {advice}")
    known, roots = _frameworks(), _roots(source)
    for root in (*roots, *(name for name in known if name not in roots and name in sys.modules)):
        if root in known and (module := _built_in("frameworks", root)).matches(source):
            return module  # type: ignore[no-any-return]
    for module in _third_party("paratree.frameworks", _names("frameworks")).values():
        if module.matches(source):
            return module  # type: ignore[no-any-return]
    if _PLAIN in sys.modules and (module := _built_in("frameworks", _PLAIN)).matches(source):
        return module  # type: ignore[no-any-return]
    if isinstance(source, type):
        raise UnknownSourceError(f"{printable(source.__qualname__)} is a class; give a model made of it")
    if isinstance(source, IOBase):
        raise UnknownSourceError(f"{_name_of(source)}: an open file; give its path")
    raise UnknownSourceError(
        f"{type(source).__module__}.{type(source).__qualname__}: not a model of any of: "
        f"{', '.join(known)}; give a model or a path"
    )


def _frameworks() -> list[str]:
    return [name for name in _names("frameworks") if name != _PLAIN]


def _name_of(file: IOBase) -> str:
    name = getattr(file, "name", None)
    return printable(name) if isinstance(name, str) else type(file).__name__


_ADVICE = {  # our own results -> what to give in their place
    "ParamTree": "give the model that it was opened from",
    "Param": "give the model that it is of",
    "Partition": "give its whole tree, merge(trainable, frozen)",
    "Tied": "give its whole tree, expand(variables)",
    "Labels": "give the tree that it labels",
}
_PACKAGES = {  # where a class is defined -> the framework it belongs to
    "jaxlib": "jax", "equinox": "jax", "haiku": "jax", "optax": "jax",
}  # fmt: skip
_CONTAINERS = (dict, list, tuple)
_PLAIN = "numpy"  # its arrays are leaves of other frameworks', which are asked before
_MOST_SEARCHED = 100_000


def _roots(source: object) -> dict[str, None]:
    """Return the root packages of an object's classes, nearest first; then those of what it contains."""
    roots = _of_class(type(source))
    waiting, searched = [source], 0
    while waiting and searched < _MOST_SEARCHED:
        found, searched = waiting.pop(), searched + 1
        if isinstance(found, _CONTAINERS):
            waiting += reversed(found.values() if isinstance(found, dict) else found)
        elif found is not source and (known := _of_class(type(found)).keys() & {*_frameworks()}):
            return roots | dict.fromkeys(known)
    return roots


def _of_class(found: type) -> dict[str, None]:
    bases = (base.__module__.partition(".")[0] for base in found.__mro__)
    return dict.fromkeys(_PACKAGES.get(root, root) for root in bases)


def array_of(value: Any, name: str) -> Any:
    """Return a framework's array, or anything that NumPy takes, as a NumPy array; ``name`` is for messages.

    Raises:
        TypeError, ValueError: NumPy cannot make an array of it.
    """
    import numpy as np

    for root in _of_class(type(value)):
        if root in _frameworks() and hasattr(module := _built_in("frameworks", root), "array"):
            return module.array(value, name).read()
    return np.asarray(value)


def known_formats() -> dict[str, Format]:
    """Return every format by the name of its module, built-in ones first."""
    built_in = {name: _built_in("formats", name) for name in _names("formats")}
    return built_in | _third_party("paratree.formats", _names("formats"))


def _built_in(room: str, name: str) -> Any:
    return import_module(f"paratree.{room}.{name}")


@cache
def _names(room: str) -> tuple[str, ...]:
    """List the modules of a folder; pkgutil would do it too, at twice the start-up of the whole file."""
    folder = import_module(f"paratree.{room}").__path__[0]
    return tuple(sorted(name[:-3] for name in os.listdir(folder) if name.endswith(".py") and name[0] != "_"))  # noqa: PTH208


@cache
def _third_party(group: str, built_in: tuple[str, ...]) -> dict[str, Any]:
    """Load the entry points of a group; they may add a name, never replace one."""
    from importlib.metadata import entry_points  # slow to import: only when the built-ins said no

    return {point.name: point.load() for point in entry_points(group=group) if point.name not in built_in}
