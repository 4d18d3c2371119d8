"""How long it takes to open a live model of 10,000 parameters, against the framework's own listing of them.

One process for each framework; both sides in turn (A B A B ...), medians, judged as ratios within one run.
The garbage collector is off while a call is timed, as ``timeit`` has it: whether it comes to walk the objects
of a whole framework just then says nothing about either side.
Prints a Markdown table; exits 1 if a bar is missed. What is not installed is said to be left out.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Sides = tuple[Any, Callable[[], Any], str]  # a model, the framework's own listing, and what it is called

LAYERS = 5_000  # of a weight and a bias each
BAR = 3.0


def torch_model() -> Sides:
    """PyTorch: 100 blocks of 50 layers."""
    from torch import nn

    net = nn.Sequential(*[nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)]) for _ in range(LAYERS // 50)])
    return net, lambda: list(net.named_parameters()), "list(net.named_parameters())"


def mxnet_model() -> Sides:
    """Gluon, initialised."""
    from tests.mxnet_numpy import mxnet

    net = mxnet.gluon.nn.Sequential()
    for _ in range(LAYERS // 50):
        block = mxnet.gluon.nn.Sequential()
        block.add(*[mxnet.gluon.nn.Dense(2, in_units=2) for _ in range(50)])
        net.add(block)
    net.initialize()
    return net, lambda: list(net.collect_params().items()), "list(net.collect_params().items())"


def linen_model() -> Sides:
    """Flax linen: variables as init returns them."""
    import jax
    import numpy as np

    layer = {"kernel": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    blocks = {f"block_{i}": {f"layers_{j}": dict(layer) for j in range(50)} for i in range(LAYERS // 50)}
    params = jax.tree_util.tree_map(jax.numpy.array, {"params": blocks})
    flatten = jax.tree_util.tree_flatten_with_path
    return params, lambda: flatten(params), "jax.tree_util.tree_flatten_with_path(params)"


def nnx_model() -> Sides:
    """Flax NNX."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    first = nnx.Linear(2, 2, rngs=rngs)
    layers = [nnx.clone(first) for _ in range(LAYERS)]
    net = nnx.Sequential(*layers)
    return net, lambda: list(nnx.iter_graph(net)), "list(nnx.iter_graph(net))"


def equinox_model() -> Sides:
    """Equinox: a module of 100 modules of 50 layers."""
    import equinox
    import jax

    layers = [equinox.nn.Linear(2, 2, key=jax.random.key(0))] * LAYERS
    layers = jax.tree_util.tree_map(lambda leaf: leaf.copy(), layers)
    blocks = [equinox.nn.Sequential(layers[i : i + 50]) for i in range(0, LAYERS, 50)]
    net = equinox.nn.Sequential(blocks)
    leaves = jax.tree_util.tree_leaves_with_path
    return net, lambda: leaves(net), "jax.tree_util.tree_leaves_with_path(net)"


def keras_model() -> Sides:
    """Keras 3 on the TensorFlow backend."""
    import keras

    blocks = [keras.Sequential([keras.layers.Dense(2) for _ in range(50)]) for _ in range(LAYERS // 50)]
    net = keras.Sequential([keras.Input((2,)), *blocks])
    return net, lambda: [(w.path, w) for w in net.weights], "[(w.path, w) for w in net.weights]"


MODELS = {
    "torch": torch_model, "mxnet": mxnet_model, "linen": linen_model, "nnx": nnx_model,
    "equinox": equinox_model, "keras": keras_model,
}  # fmt: skip


def measure(name: str, rounds: int) -> tuple[str, bool]:
    """Time both sides in this process; return the line of the table, and whether the bar is kept."""
    import paratree

    source, listing, title = MODELS[name]()
    tree = paratree.open(source)
    if len(tree) < 2 * LAYERS:
        raise SystemExit(f"{name}: {len(tree)} parameters instead of {2 * LAYERS}")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, call in zip(times, (lambda: paratree.open(source), listing), strict=True):
            gc.disable()
            started = time.perf_counter()
            call()
            side.append(time.perf_counter() - started)
            gc.enable()
    ours, other = (statistics.median(side) for side in times)
    passed = ours / other <= BAR
    row = f"| {name} | {ours * 1e3:.1f} ms | `{title}`: {other * 1e3:.1f} ms | {ours / other:.2f}x |"
    return f"{row} ≤ {BAR:g}x | {'pass' if passed else '**MISSED**'} |", passed


def main() -> int:
    """Measure every framework in a process of its own, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="runs of each side (default: %(default)s)")
    parser.add_argument("--only", choices=MODELS, help="one framework, in this process")
    options = parser.parse_args()
    if options.only:
        line, passed = measure(options.only, options.rounds)
        print(line)
        return 0 if passed else 1
    print(f"10,000 parameters; medians of {options.rounds}, in turn\n")
    print("| framework | paratree.open | its own listing | measured | bar | |\n|---|---|---|---|---|---|")
    kept = True
    for name in MODELS:
        command = [sys.executable, "-m", "benchmarks.live", "--only", name, "--rounds", str(options.rounds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if "ModuleNotFoundError" in done.stderr:
            print(f"| {name} | not installed | | | | |")
            continue
        failed = f"| {name} | **failed**: {done.stderr[-200:]} | | | | |\n"
        print(done.stdout or failed, end="", flush=True)
        kept &= done.returncode == 0
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
