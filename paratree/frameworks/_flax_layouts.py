"""Flax: by what names the table of layouts knows a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.frameworks._jax_trees import root_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def flax_classes(layer: object) -> Iterator[str]:
    """Name the classes of Flax that a layer is of; what turns its kernel round is part of the name."""
    turned = ".transpose_kernel" if getattr(layer, "transpose_kernel", False) is True else ""
    return (base.__name__ + turned for base in type(layer).__mro__ if root_of(base) == "flax")
