"""JAX where a process of its own is needed: what is imported, several devices, several processes."""

import subprocess
import sys
import textwrap
from socket import socket

import pytest

for package in ("jax", "flax", "equinox", "haiku", "optax"):
    pytest.importorskip(package, reason=f"could not import {package}; these tests need it")

FRAMEWORKS = ("torch", "tensorflow", "keras", "tf_keras", "mxnet", "flax", "jax", "optax", "haiku", "equinox")
SOURCES = """
    import jax; source = {'w': jax.numpy.ones(3)}
    import optax; source = optax.adam(0.1).init({'w': jax.numpy.ones(3)})
    import equinox; source = equinox.nn.Linear(2, 3, key=jax.random.key(0))
    from flax import linen as nn; source = nn.Dense(2)
    source = source.init(jax.random.key(0), jax.numpy.ones((1, 3)))
    import flax; source = flax.core.freeze({'w': jax.numpy.ones(3)})
    from flax import nnx; source = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    import haiku as hk; made = hk.transform(lambda x: hk.Linear(2)(x)).init; one = jax.numpy.ones((1, 3))
    source = made(jax.random.key(0), one)
"""
OPENED = """
import sys
import paratree as pt

for line in SOURCES.strip().splitlines():
    exec(line.strip())
    held = {name for name in FRAMEWORKS if name in sys.modules}
    tree = pt.open(source)
    text = repr(tree), tree.size, tree.ties
    values = [param.value for param in tree.values() if not param.array.problem]
    new = {name for name in FRAMEWORKS if name in sys.modules} - held
    assert not new, f"opening {line} imported {new}"
    print(tree.source, *sorted(held))
"""


def command(code, *arguments):
    return [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]


def run(code, **environment):
    import os

    done = subprocess.run(
        command(code), capture_output=True, text=True, check=False, timeout=300, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_opening_imports_no_other_framework():
    out = run(f"SOURCES, FRAMEWORKS = {SOURCES!r}, {FRAMEWORKS!r}\n{OPENED}").splitlines()
    assert [line.split()[0] for line in out] == [
        "dict", "tuple", "Linear", "Dense", "dict", "FrozenDict", "Linear", "Linear", "dict",
    ]  # fmt: skip
    assert out[0] == "dict jax", "the first ones were opened while nothing else was imported"
    assert "flax" not in out[2]


def test_a_model_of_another_framework_does_not_import_jax():
    run("""
        import sys
        import paratree as pt

        try:
            pt.open({"w": object()})
        except pt.UnknownSourceError:
            pass
        assert "jax" not in sys.modules
        assert "flax" not in sys.modules
    """)


def test_arrays_spread_over_devices_have_their_whole_shape_and_are_gathered():
    out = run(
        """
        import jax, numpy as np, paratree as pt
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        whole = np.arange(8, dtype=np.float32).reshape(4, 2)
        spread = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
        params = {"w": jax.device_put(whole, spread)}
        assert len(params["w"].devices()) == 4
        with jax.transfer_guard("disallow"):
            param = pt.open(params)["w"]
            assert param.shape == (4, 2)
        assert (param.value == whole).all() and (param[1] == whole[1]).all()
        new = pt.update(params, {"w": lambda w: w * 2})["w"]
        assert new.sharding == spread and (np.asarray(new) == whole * 2).all()
        found = pt.gradients(params, lambda p: (p["w"] ** 2).sum(), per_use=True)
        assert (found["w"] == whole * 2).all()
        print("done")
        """,
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
        JAX_PLATFORMS="cpu",
    )
    assert out == "done\n"


def test_an_array_of_which_parts_are_in_other_processes_is_refused():
    code = """
        import sys
        import jax
        import numpy as np

        jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]))
        import paratree as pt
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        values = np.arange(8, dtype=np.float32).reshape(4, 2)
        mesh = Mesh(np.array(jax.devices()), ("x",))
        spread, everywhere = (
            jax.make_array_from_callback((4, 2), NamedSharding(mesh, spec), lambda index: values[index])
            for spec in (PartitionSpec("x"), PartitionSpec())
        )
        tree = pt.open({"spread": spread, "everywhere": everywhere})
        assert tree["spread"].shape == (4, 2)
        assert (tree["everywhere"].value == values).all()
        try:
            tree["spread"].value
        except pt.UnreadableError as error:
            print(error)
    """
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        subprocess.Popen(
            command(code, number, port), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in (0, 1)
    ]
    for process in both:
        out, error = process.communicate(timeout=300)
        assert out == (
            "spread: parts of it are in other processes; gather them on every one with "
            "jax.experimental.multihost_utils.process_allgather(array, tiled=True)\n"
        ), error[-2000:]
