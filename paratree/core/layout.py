"""The layout of a parameter: the names of its axes, in order, as one string.

A dense kernel is ``"out in"`` in PyTorch and Gluon, ``"in out"`` in Keras and Flax.
"""

from __future__ import annotations
