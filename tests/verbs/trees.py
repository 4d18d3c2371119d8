"""Trees that are only listed: shapes and dtypes without values."""

from paratree.core.array import RefusedArray, Storage
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree

SHAPES = {
    "self_attn.q_proj.weight": (64, 64),
    "self_attn.q_proj.bias": (64,),
    "mlp.up.weight": (256, 64),
    "mlp.down.weight": (64, 256),
    "norm.weight": (64,),
}


class Listed(RefusedArray):
    """An array that could be read, unless it has a problem."""

    def __init__(self, shape, dtype="float32", *, storage=None, problem=None):
        super().__init__(shape, dtype, problem, storage)


def listed(name, shape=(4,), dtype="float32", kind="parameter", *, memory=None, problem=None, **more):
    """Return a parameter; those of one ``memory`` are tied."""
    storage = None if memory is None else Storage(memory)
    return Param(name, Listed(shape, dtype, storage=storage, problem=problem), kind, **more)


def tree_of(*params, source="net", format="test", meta=None, notes=()):
    made = [param if isinstance(param, Param) else listed(param) for param in params]
    return ParamTree(made, Origin(source, format, meta, notes))


def transformer(layers=4, **origin):
    """Return a small language model whose head is tied to its embedding."""
    return tree_of(
        listed("model.embed.weight", (1000, 64), memory="embed"),
        listed("model.position_ids", (1, 512), "int64", "buffer"),
        *[listed(f"model.layers.{i}.{name}", shape) for i in range(layers) for name, shape in SHAPES.items()],
        listed("lm_head.weight", (1000, 64), memory="embed"),
        **origin,
    )


def checkpoint():
    """Return a training checkpoint: a model, the state of its optimizer, and plain values."""
    return tree_of(
        listed("model.0.weight", (8, 4), trainable=True),
        listed("model.0.bias", (8,), trainable=False),
        listed("optimizer.state.0.exp_avg", (8, 4), kind="state"),
        listed("optimizer.state.0.exp_avg_sq", (8, 4), kind="state"),
        listed("rng", (16,), "uint8", "other"),
        source="run/step_2000.pt",
        format="PyTorch zip",
        meta={"epoch": 3, "optimizer": {"param_groups": [{"lr": 0.0003}]}},
    )
