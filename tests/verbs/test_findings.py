"""What is worth a look, and what is not: a model fresh from its constructor has nothing."""

from __future__ import annotations

import numpy as np
import pytest

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.verbs.findings import target_dtype
from tests.verbs.test_stats import _tree

FLOATS = [name for name in BITS if "float" in name]


def _found(target=None, **arrays):
    return [(f.name, f.what, f.text) for f in pt.stats(_tree(**arrays), target=target).findings]


def _matrix(scale=0.02, shape=(16, 12), seed=0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def test_nan_and_infinity_with_the_place_of_the_first():
    w = _matrix(shape=(300, 900))
    w[2, 3] = w[200, 1] = np.nan
    w[4, 0] = -np.inf
    assert _found(w=w) == [
        ("w", "nan", "2 of 270000 values are NaN, the first at [2, 3]"),
        ("w", "inf", "1 of 270000 values are infinite, the first at [4, 0]"),
    ]


def test_a_constant_matrix():
    assert _found(w=np.full((4, 5), 0.25)) == [("w", "constant", "all 20 values are 0.25")]


def test_what_initialisers_make_is_no_finding():
    embedding = _matrix(shape=(100, 8))
    embedding[0] = 0  # the padding row
    assert not _found(
        bias=np.zeros(64), scale=np.ones(64), layer_scale=np.full(64, 1e-5), lora_B=np.zeros((64, 4)),
        cls_token=np.zeros((1, 1, 64)), mask=np.ones((8, 8)), embedding=embedding,
        tiny=np.zeros((1, 1)), scalar=np.float32(3),
    )  # fmt: skip


def test_dead_rows_and_columns():
    w = _matrix()
    w[[3, 7]] = 0
    w[:, [0, 1, 2, 5]] = 0
    assert _found(w=w) == [
        ("w", "dead", "zeros only: 2 of 16 rows (3, 7)"),
        ("w", "dead", "zeros only: 4 of 12 columns (0, 1, 2, …)"),
    ]


def test_many_zeros_are_not_dead():
    w = _matrix()
    w[np.random.default_rng(0).random(w.shape) < 0.3] = 0
    assert not _found(w=w)


def test_one_layer_far_from_its_siblings():
    layers = {f"h__{i}__w": _matrix(1.0 if i == 4 else 0.02, seed=i) for i in range(8)}
    ((name, what, text),) = _found(**layers)
    assert (name, what) == ("h.4.w", "siblings")
    assert text.startswith("its standard deviation is 1.0")
    assert "7 siblings are 0.0" in text


def test_one_dead_layer_among_siblings():
    layers = {f"h__{i}__w": _matrix(0.0 if i == 1 else 0.02, seed=i) for i in range(3)}
    assert _found(**layers) == [("h.1.w", "siblings", "all 192 values are zero, its 2 siblings are not")]


def test_a_scale_of_zeros_among_siblings():
    scales = {f"h__{i}__norm__weight": np.full(8, 0.0 if i == 2 else 1.0) for i in range(3)}
    biases = {f"h__{i}__norm__bias": np.full(8, 0.0 if i == 2 else 0.1) for i in range(3)}
    assert [name for name, *_ in _found(**scales, **biases)] == ["h.2.norm.weight"]


def test_one_value_far_beyond_the_others():
    w = _matrix(0.1, (60, 60))
    w[3, 4] = 1e5
    ((name, what, text),) = _found(w=w)
    assert (name, what) == ("w", "outlier")
    assert text.startswith("the largest magnitude is 1e+05, and 99.8 % of the values lie within 0.3")


def test_a_negative_variance():
    tree = _tree(bn__running_var=np.array([1.0, -0.5]))
    assert [f.text for f in pt.stats(tree).findings] == ["a variance, and its smallest value is -0.5"]


def test_a_mask_of_attention_is_no_finding():
    from paratree.core.tree import Origin, Param, ParamTree
    from tests.verbs.test_stats import _Array

    mask = np.triu(np.full((4, 4), -np.inf), 1)
    for kind, count in (("buffer", 0), ("parameter", 1)):
        tree = ParamTree([Param("mask", _Array(mask), kind)], Origin("t", "test"))
        assert len(pt.stats(tree).findings) == count


def test_siblings_that_grow_steadily_are_no_finding():
    assert not _found(**{f"h__{i}__w": _matrix(0.02 * 1.6**i, seed=i) for i in range(12)})


@pytest.mark.parametrize("target", ["float16", "fp16", "half"])
def test_values_beyond_another_dtype(target):
    w = _matrix(1.0)
    w[0, 0], w[1, 1] = 70_000, -3e6
    assert _found(target, w=w) == [
        (
            "w",
            "range",
            "at least 2 of 192 values are beyond float16, whose largest is 65504; the largest here is 3e+06",
        )
    ]


def test_values_too_small_for_another_dtype():
    ((_, what, text),) = _found("fp16", w=_matrix(1e-9))
    assert what == "range"
    assert "192 of 192 values would be zero in float16" in text


def test_what_fits_is_no_finding():
    assert not _found("bf16", w=_matrix())
    assert not _found("fp16", w=np.full((2, 3), 65_519.0, np.float32) * np.array([[1, 0.5, 0.25]]))


@pytest.mark.parametrize("dtype", FLOATS)
def test_ranges_are_those_of_the_cast_itself(dtype):
    target = target_dtype(dtype)
    kind = numpy_dtype(dtype)

    def cast(value):
        with np.errstate(over="ignore"):
            return float(np.float64(value).astype(kind).astype(np.float64))

    assert cast(target.largest) == target.largest
    assert cast(np.nextafter(target.overflow, 0)) == target.largest
    if np.isfinite(target.overflow) and not dtype.startswith(("float4", "float6")):  # these saturate
        assert not np.isfinite(cast(target.overflow))
    if target.tiny and cast(0.0) == 0:  # float64 rounds nothing to zero, e8m0 has none
        assert cast(target.tiny) == 0
        assert cast(target.tiny * 1.001) > 0  # ml_dtypes rounds to float32 first


@pytest.mark.parametrize("name", ["int8", "float17", "", "bool", "\x1b"])
def test_no_floating_dtype(name):
    with pytest.raises(pt.UnreadableError, match="is no floating dtype"):
        target_dtype(name)


def _torch_models():
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed here")
    nn = torch.nn
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    yield nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4), nn.PReLU(4))
    yield nn.LSTM(8, 16, num_layers=3, bidirectional=True)
    yield nn.Transformer(32, 4, 4, 4, 64)
    yield nn.Embedding(50, 8, padding_idx=3)
    yield transformers.BertModel(transformers.BertConfig(vocab_size=99, **small))
    yield transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **small))
    yield transformers.T5Model(
        transformers.T5Config(vocab_size=99, d_model=32, d_ff=64, num_layers=4, d_kv=8)
    )
    yield transformers.SwinModel(
        transformers.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4])
    )


def test_fresh_torch_models_have_no_findings():
    for model in _torch_models():
        assert pt.stats(model).findings == (), type(model)


def test_fresh_flax_models_have_no_findings():
    jax = pytest.importorskip("jax", reason="jax is not installed here")
    nn = pytest.importorskip("flax.linen", reason="flax is not installed here")
    net = nn.Sequential(
        [nn.Conv(8, (3, 3)), nn.BatchNorm(use_running_average=True), nn.Dense(4), nn.LayerNorm()]
    )
    variables = net.init(jax.random.key(0), jax.numpy.ones((1, 8, 8, 3)))
    assert pt.stats(variables).findings == ()


def test_fresh_keras_models_have_no_findings():
    keras = pytest.importorskip("keras", reason="keras is not installed here")
    layers = keras.layers
    net = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.SeparableConv2D(8, 3), layers.BatchNormalization()]
    )
    net.add(layers.Reshape((36, 8)))
    net.add(layers.Bidirectional(layers.LSTM(8)))
    net.add(layers.Dense(3))
    assert pt.stats(net).findings == ()
