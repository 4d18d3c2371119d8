"""PyTorch: zip files, TorchScript and torch.export archives, legacy files (before 1.6), shard indexes.

The pickle inside is read by files.pickle, which calls and imports nothing; formats._torch_storages says how
the files are laid out. TorchScript adds ``ROOT/constants.pkl``.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.core.names import OTHER
from paratree.files.shards import is_index, open_index
from paratree.files.zip import archive
from paratree.formats._pickled_tree import PickledTree
from paratree.formats._torch_export import export_root, open_export
from paratree.formats._torch_storages import MAGIC, is_big_endian, load_legacy, load_zip, zip_root
from paratree.formats._torch_tensors import WRITTEN
from paratree.formats._torchscript import declared_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.core.tree import ParamTree
    from paratree.files.local import LocalFile
    from paratree.files.output import Output
    from paratree.files.zip import Member

NAME = "PyTorch"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".jit", ".pt2", ".pth.tar", ".bin.index.json")
FOLDER = (
    "pytorch_model.bin.index.json",
    "*.bin.index.json",
    "pytorch_model.bin",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
)
LAZY = "yes"
TIES = "shared storages"
READS = (
    "zip, legacy, TorchScript, weights of torch.export, whole modules, training checkpoints, shard indexes"
)
EXTRA = None
MAKES = "file"
WRITES = WRITTEN

_SCRIPT = "PyTorch TorchScript"


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is a zip of torch, a legacy file, or an index of such files."""
    if file.head[:1] == b"\x80":
        return MAGIC in file.head[:32]
    if (members := archive(file)) is not None:
        return zip_root(members) is not None or export_root(members) is not None
    return is_index(file, ".bin")


def open(file: LocalFile) -> ParamTree:
    """Read the pickle and the places of the storages, and return the tree.

    Raises:
        CorruptFileError: the pickle or the storages do not fit the file.
        UnsafeFileError: the pickle would call code of the standard library.
    """
    if file.head[:1] in (b"\x80", b"P"):
        return _open_one(file)
    return open_index(file, _open_one, NAME)


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that every tied group can be written."""
    return True


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write a zip that ``torch.load`` reads, ``weights_only`` too, as one dictionary of names to tensors."""
    from paratree.formats._torch_written import write

    return write(tree, output)


def _open_one(file: LocalFile) -> ParamTree:
    if not sniff(file):
        raise CorruptFileError(file.path, "this is no PyTorch file", offset=0)
    members = archive(file)
    if members is None:
        return _open_legacy(file)
    if zip_root(members) is None and (root := export_root(members)) is not None:
        return open_export(file, members, root)
    return _open_zip(file, members)


def _open_zip(file: LocalFile, members: dict[str, Member]) -> ParamTree:
    root = zip_root(members) or ""
    big_endian = is_big_endian(members, root, file.path)
    script = root + "constants.pkl" in members
    found = PickledTree(file, _SCRIPT if script else "PyTorch zip", big_endian=big_endian)
    if script:
        found.declared = declared_kinds(members, root)
    value, find, source = load_zip(members, root + "data.pkl", root + "data/", file.path)
    found.meta = found.add(value, find, source.size, source)
    if script:
        value, find, source = load_zip(members, root + "constants.pkl", root + "constants/", file.path)
        found.add(value, find, source.size, source, path=("constants",), kind=OTHER)
        if found.params and all(param.kind == OTHER for param in found.params.values()):
            found.notes.append("the module is frozen: its weights are constants, without names")
    return found.tree()


def _open_legacy(file: LocalFile) -> ParamTree:
    value, find, length = load_legacy(file)
    found = PickledTree(file, "PyTorch legacy")
    found.meta = found.add(value, find, length, file)
    return found.tree()
