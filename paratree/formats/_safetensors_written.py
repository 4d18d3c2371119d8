"""Write safetensors: the header in the order of the tree, the arrays in the order of their widths.

Ties as ``safetensors.torch.save_model`` (0.8.0) records them: of a tied group one name is stored, and the
metadata maps every other one to it. That keeps the name that sorts first; here it is the first of the tree,
which transformers looks for: the embedding, not the head that is tied to it. ``load_model`` takes either.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from paratree.core.dtypes import BITS
from paratree.core.errors import UnsupportedError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

_METADATA = "__metadata__"
_ALIGNMENT = 8  # of the data; the header is filled up with spaces


def write(tree: ParamTree, output: Output, words: Mapping[str, str]) -> list[str]:
    """Write a tree; ``words`` are the names of the dtypes in a header.

    Raises:
        UnsupportedError: a name that cannot be a key of a header.
    """
    kept = {name: tree.tied_with(name)[0] for name in tree}
    for name in kept:
        _check(name, tree[name])
    placed = sorted((name for name in tree if kept[name] == name), key=lambda name: -BITS[tree[name].dtype])
    metadata, notes = _metadata(tree)
    metadata |= {name: other for name, other in kept.items() if name != other}
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    header |= {name: {} for name in tree if kept[name] == name}
    end = 0
    for name in placed:
        param: Param = tree[name]
        start, end = end, end + (param.nbytes or 0)
        header[name] = {"dtype": words[param.dtype], "shape": list(param.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    output.write(len(text).to_bytes(8, "little") + text)
    for name in placed:
        output.values(tree[name].array)
    return notes


def _check(name: str, param: Param) -> None:
    if name == _METADATA:
        raise UnsupportedError(f"'{name}' is the name of the metadata in safetensors; rename the parameter")
    if (param.size or 0) * BITS[param.dtype] % 8:
        values = f"{param.size} values of {param.dtype}"
        raise UnsupportedError(
            f"'{printable(name)}': {values} are no whole number of bytes, as safetensors wants"
        )
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        raise UnsupportedError(f"'{printable(name)}' is no UTF-8, as a name in safetensors is; rename it")


def _metadata(tree: ParamTree) -> tuple[dict[str, str], list[str]]:
    """Return the texts that stand beside the parameters, and what is said of the rest.

    Tensors of PyTorch are said to be such, without which transformers refuses a file that has metadata.
    """
    texts = {key: value for key, value in tree.meta.items() if isinstance(value, str)}
    left = [key for key in tree.meta if key not in texts]
    if tree.format.startswith("PyTorch"):
        texts.setdefault("format", "pt")
    names = ", ".join(map(printable, left[:5])) + (", …" if len(left) > 5 else "")
    return texts, [f"metadata that is no text was left out: {names}"] if left else []
