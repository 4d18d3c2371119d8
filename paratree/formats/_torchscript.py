"""Which attributes of a TorchScript module are parameters and buffers: its archived code lists them.

The code is searched as text, never compiled: ``class NAME(Module):`` is followed by
``__parameters__ = ["weight", ]`` and ``__buffers__ = []``.
"""

from __future__ import annotations

import re

from paratree.core.names import BUFFER, PARAMETER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.files.zip import Member

_MOST_CODE = 16 << 20  # bytes of code that are searched; beyond them names decide, as in a state dict
_DECLARATION = re.compile(
    r"^class (?P<name>\w+)\(Module\):\n  __parameters__ = \[(?P<parameters>[^]\n]*)\]\n"
    r"  __buffers__ = \[(?P<buffers>[^]\n]*)\]\n",
    re.MULTILINE,
)
_QUOTED = re.compile(r'"([^"]*)"')


def declared_kinds(members: dict[str, Member], root: str) -> dict[str, dict[str, str]]:
    """Return class -> attribute -> kind for every module class in the archive's ``code`` folder."""
    kinds: dict[str, dict[str, str]] = {}
    left = _MOST_CODE
    for name, member in members.items():
        if not name.startswith(root + "code/__torch__") or not name.endswith(".py"):
            continue
        left -= member.size
        if left < 0:
            return {}
        module = name[len(root) + 5 : -3].replace("/", ".")
        for found in _DECLARATION.finditer(member.bytes().decode("utf-8", "replace")):
            kinds[f"{module}.{found['name']}"] = {
                **dict.fromkeys(_QUOTED.findall(found["parameters"]), PARAMETER),
                **dict.fromkeys(_QUOTED.findall(found["buffers"]), BUFFER),
            }
    return kinds
