"""What a name says: its segments, the role of the parameter, whether it is trained."""

from __future__ import annotations

import re
from functools import lru_cache

PARAMETER, BUFFER, STATE, OTHER = KINDS = ("parameter", "buffer", "state", "other")

COLLECTIONS = {  # of Flax, and the fields of a training state -> kind of what is in them
    "params": PARAMETER, "batch_stats": BUFFER, "cache": BUFFER, "opt_state": STATE,
    "intermediates": OTHER, "perturbations": OTHER, "step": OTHER,
}  # fmt: skip

_ROLES = {  # last segment of a name -> role; torch, Gluon, Keras, Flax and Haiku words
    "weight": "weight", "kernel": "weight", "embedding": "weight", "embeddings": "weight", "w": "weight",
    "depthwise_kernel": "weight", "pointwise_kernel": "weight", "in_proj_weight": "weight",
    "weight_g": "weight", "weight_v": "weight", "i2h_weight": "weight", "weight_ih": "weight",
    "recurrent_kernel": "recurrent_weight", "weight_hh": "recurrent_weight", "h2h_weight": "recurrent_weight",
    "bias": "bias", "b": "bias", "beta": "bias", "in_proj_bias": "bias", "bias_ih": "bias", "bias_hh": "bias",
    "i2h_bias": "bias", "h2h_bias": "bias",
    "recurrent_bias": "bias",
    "gamma": "scale", "scale": "scale",
    "running_mean": "running_mean", "moving_mean": "running_mean",
    "running_var": "running_var", "moving_variance": "running_var",
    "num_batches_tracked": "counter", "iteration": "counter", "iterations": "counter", "count": "counter",
}  # fmt: skip
_RNN = (
    ("weight_ih_l", "weight"),
    ("weight_hh_l", "recurrent_weight"),
    ("bias_ih_l", "bias"),
    ("bias_hh_l", "bias"),
)
ROLES = tuple(dict.fromkeys(_ROLES.values()))
_BUFFER_ROLES = frozenset({"running_mean", "running_var", "counter"})
_TRAINED_INTEGERS = ("weight", "qweight", "kernel", "embedding", "embeddings", "weight_packed")


def join(parts: tuple[str, ...]) -> str:
    """Return the dotted name of a path."""
    return ".".join(parts)


_DIGITS = re.compile(r"([0-9]{1,9})")


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts ``layer.2`` before ``layer.10``."""
    parts = _DIGITS.split(name)
    return [(True, 0, part) if i % 2 == 0 else (False, int(part), "") for i, part in enumerate(parts)]


def split(name: str) -> list[str]:
    """Return the segments of a name; ``/`` and ``.`` both separate.

    >>> split("encoder/0.weight")
    ['encoder', '0', 'weight']
    """
    return name.replace("/", ".").split(".")


def last_segment(name: str) -> str:
    """Return what stands behind the last separator of a name.

    >>> last_segment("encoder/0.weight")
    'weight'
    """
    return name[max(name.rfind("."), name.rfind("/")) + 1 :]


def role_of(name: str) -> str | None:
    """Return the part a parameter plays in its layer, from its name, or ``None``.

    >>> role_of("dense_1.kernel"), role_of("lstm.weight_hh_l0"), role_of("cls_token")
    ('weight', 'recurrent_weight', None)
    """
    return _role_of_last(last_segment(name))


@lru_cache(maxsize=1024)  # models have many names and few last segments
def _role_of_last(last: str) -> str | None:
    if role := _ROLES.get(last) or _ROLES.get(last.lower()):
        return role
    return next((role for start, role in _RNN if last.startswith(start)), None)


def kind_of(name: str, dtype: str) -> str:
    """Return ``"parameter"`` or ``"buffer"`` for a tensor of a model that does not say which it is.

    Running statistics and counters are buffers by name; so are integers and booleans (position
    ids, masks), unless their name is that of a (quantised) weight.
    """
    return _kind_of_last(last_segment(name), dtype)


@lru_cache(maxsize=1024)
def _kind_of_last(last: str, dtype: str) -> str:
    if _role_of_last(last) in _BUFFER_ROLES:
        return BUFFER
    if dtype.startswith(("int", "uint", "bool")) and last not in _TRAINED_INTEGERS:
        return BUFFER
    return PARAMETER
