"""Writes Orbax checkpoints of every layout, over four devices, and what Orbax itself restores from them.

``python -m tests.formats.orbax_checkpoints FOLDER`` in a process of its own, as the devices must be made
before JAX starts. Beside each checkpoint ``NAME`` is ``NAME.json``: name -> dtype, shape, bytes in base64;
or a number, as which Orbax restores scalars, whatever they were.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

LAYOUTS = {
    f"{'ocdbt' if ocdbt else 'files'}-zarr{3 if zarr3 else 2}": {"use_ocdbt": ocdbt, "use_zarr3": zarr3}
    for ocdbt in (True, False)
    for zarr3 in (True, False)
}


def main(folder: Path) -> None:
    """Write everything."""
    os.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    import jax
    import jax.numpy as jnp
    import numpy as np
    import orbax.checkpoint as ocp
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))

    def spread(array: jax.Array, *axes: str | None) -> jax.Array:
        return jax.device_put(array, NamedSharding(mesh, P(*axes)))

    normal = jax.random.normal(jax.random.key(0), (12, 8, 3))
    layers = {
        "Dense_0": {"kernel": spread(normal, "x", "y"), "bias": jnp.ones(4, jnp.bfloat16)},
        "Dense_10": {
            "kernel": spread(normal[:, :, 0], None, "y"),
            "bias": spread(jnp.arange(8.0), ("x", "y")),
        },
        "Dense_2": {"kernel": spread(normal.astype(jnp.bfloat16)[..., 0].T, "y")},
    }
    tree = {
        "params": layers, "zeros": jnp.zeros((100, 100)),
        "list": [jnp.arange(3), {"a": np.float32(2.5)}, [jnp.array([True, False])]], "tuple": (1, 2.5, True),
        "nothing": None, "no": {}, "none": [],
        "scalar": jnp.float32(3), "i64": np.arange(4, dtype=np.int64), "u8": np.arange(5, dtype=np.uint8),
        "f16": jnp.ones(3, jnp.float16) / 3, "f8": jnp.arange(4).astype(jnp.float8_e4m3fn),
        "i4": jnp.arange(4).astype(jnp.int4), "f64": np.linspace(0, 1, 7),
        "c64": np.array([1 + 2j, -1j], np.complex64), "a.b": np.ones(2), "sl/ash": np.full(2, 7.0),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "random": jax.random.key(7), "word": "hello",
    }  # fmt: skip
    for name, layout in LAYOUTS.items():
        checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**layout))
        checkpointer.save(folder / name, dict(tree))
        restored = checkpointer.restore(folder / name)
        found = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored):
            key = ".".join(str(getattr(step, "key", getattr(step, "idx", None))) for step in path)
            if isinstance(leaf, bool | int | float):
                found[key] = leaf
            elif not isinstance(leaf, str):
                random = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
                    leaf.dtype, jax.dtypes.prng_key
                )
                array = np.asarray(jax.random.key_data(leaf) if random else leaf)
                data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
                found[key] = [array.dtype.name, list(array.shape), data]
        (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
