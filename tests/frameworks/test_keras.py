"""Keras 3 models as trees: names, kinds, dtypes, ties and errors, on whichever backend it runs."""

import doctest
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt

keras = pytest.importorskip("keras", reason="could not import keras; these tests need it")
if keras.__version__ < "3":
    pytest.skip("could not import keras 3; these tests need it", allow_module_level=True)
from keras import layers, ops  # noqa: E402 -- Keras 2 would not do

from tests.formats import keras_models as models  # noqa: E402 -- it imports keras
from tests.frameworks.cases import keras as cases  # noqa: E402 -- it imports keras

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).random((2, 4), dtype="float32")


def built(*parts, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *parts])


class Holder(layers.Layer):
    """A layer with the variables it is given."""

    def __init__(self, **variables):
        super().__init__(name="holder")
        for name, variable in variables.items():
            setattr(self, name, variable)


def variable(values, **options):
    return keras.Variable(np.asarray(values, "float32"), **options)


# Names, order, kinds


@pytest.mark.parametrize("make", [pytest.param(m, id=n) for n, m in models.LAYERS.items()])
def test_names_of_every_layer_are_those_of_the_file_that_keras_saves(make, tmp_path):
    pytest.importorskip("h5py", reason="could not import h5py; Keras saves with it")
    net = make()
    net.save(tmp_path / "m.keras")
    live = pt.open(net)
    with pt.open(tmp_path / "m.keras") as saved:
        known = {name: p for name, p in saved.items() if p.kind not in ("other", "state")}
        lent = [
            name for group in live.ties for name in group[:1]
        ]  # SpectralNormalization shows its layer's kernel
        assert [name for name in live if name not in lent] == list(known)
        for name, param in known.items():
            assert (live[name].kind, live[name].layout) == (param.kind, param.layout), name
            np.testing.assert_array_equal(live[name].value, param.value)


@pytest.mark.parametrize(
    "make", [models.sequential, models.functional, models.deep, models.subclassed, models.tied]
)
def test_names_and_order_are_those_of_the_model(make):
    net = make()
    tree = pt.open(net)
    assert list(tree) == list(models.expected(net))
    assert [param.handle for param in tree.values()] == net.weights
    assert tree.size == sum(int(np.prod(v.shape)) for v in net.weights if "moving" not in v.path)


def test_order_is_that_of_the_weights_and_every_handle_is_one_of_them():
    net = models.functional()
    handles = [id(param.handle) for param in pt.open(net).values()]
    assert handles == [id(variable) for variable in net.weights]


def test_the_source_is_the_class_and_the_format_names_the_backend():
    tree = pt.open(built(layers.Dense(2)))
    assert (tree.source, tree.format) == ("Sequential", f"Keras on {BACKEND}")


def test_statistics_are_buffers_and_seeds_and_metrics_are_not_listed():
    net = built(layers.Dense(3), layers.BatchNormalization(name="norm"), layers.Dropout(0.5, seed=1))
    net.compile("adam", "mse", metrics=["mae"])
    net.fit(X, np.ones((2, 3)), verbose=0)
    tree = pt.open(net)
    assert [param.handle for param in tree.values()] == net.weights
    assert len(net.variables) > len(net.weights)
    assert list(tree.select(kind="buffer")) == ["norm.moving_mean", "norm.moving_variance"]
    assert tree["norm.moving_mean"].trainable is False


def test_a_frozen_parameter_is_a_parameter_still():
    net = built(layers.Dense(3, name="a"), layers.BatchNormalization(name="norm"))
    net.layers[0].trainable = net.layers[1].trainable = False
    assert net.trainable_weights == []
    kinds = [param.kind for param in pt.open(net).values()]
    assert kinds == ["parameter"] * 4 + ["buffer"] * 2
    assert not any(param.trainable for param in pt.open(net).values())


def test_quantised_weights_are_parameters():
    net = built(layers.Dense(8, name="a"))
    net.quantize("int8")
    tree = pt.open(net)
    assert [param.handle for param in tree.values()] == net.weights
    assert (tree["a.kernel"].dtype, tree["a.kernel"].kind) == ("int8", "parameter")


def test_a_layer_alone_has_names_without_its_own():
    layer = layers.Dense(3, name="out")
    layer.build((None, 4))
    assert list(pt.open(layer)) == ["kernel", "bias"]
    assert pt.open(layer)["bias"].native == "net.weights[1]"


def test_layers_of_one_name_go_by_their_attributes():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.left, self.right = layers.Dense(4, name="same"), layers.Dense(4, name="same")
            self.more = [layers.Dense(4, name="same")]

        def call(self, x):
            return self.more[0](self.right(self.left(x)))

    net = Net()
    net(X)
    tree = pt.open(net)
    assert list(tree) == [
        f"{name}.{key}" for name in ("left", "right", "more.0") for key in ("kernel", "bias")
    ]
    assert [param.handle for param in tree.values()] == net.weights


def test_variables_that_no_layer_made_go_by_their_attributes():
    tree = pt.open(Holder(scale=variable(1.0), steps=[variable(2.0), variable(3.0)]))
    assert list(tree) == ["scale", "steps.0", "steps.1"]


def test_variables_of_one_name_in_a_layer_are_told_apart():
    class Twice(layers.Layer):
        def build(self, shape):
            self.a = self.add_weight(shape=(2,), name="w")
            self.b = self.add_weight(shape=(2,), name="w")

    layer = Twice()
    layer.build((None, 2))
    assert list(pt.open(layer)) == ["w", "b"]


def test_a_layer_held_in_two_places_is_listed_once():
    inner = layers.Dense(4, name="inner")
    given = keras.Input((4,))
    nested = keras.Sequential([keras.Input((4,)), inner], name="nested")
    net = keras.Model(given, inner(nested(given)))
    tree = pt.open(net)
    assert [param.handle for param in tree.values()] == net.weights
    assert any("one layer, listed once" in note for note in tree.notes), tree.notes


def test_a_functional_model_says_how_often_it_uses_a_layer():
    given = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    net = keras.Model(given, shared(shared(shared(given))))
    assert pt.open(net).notes == ("shared is used 3 times: its parameters are listed and counted once",)


def test_the_path_is_another_name():
    net = built(layers.Dense(3, name="out"))
    net.name = "net"
    param = pt.open(net)["out.kernel"]
    assert param.aliases == (param.handle.path,)
    assert pt.open(net)[param.handle.path].handle is param.handle


# Layers that are not built yet


def test_what_layers_know_before_they_are_built():
    net = keras.Sequential(
        [
            layers.Embedding(5, 3, name="embed"),
            layers.Conv1D(4, 2, use_bias=False, name="conv"),
            layers.BatchNormalization(scale=False, name="norm"),
            layers.Bidirectional(layers.GRU(3), name="both"),
            layers.SimpleRNN(2, name="rnn"),
            layers.LSTM(2, name="lstm"),
            layers.SeparableConv2D(4, (2, 3), depth_multiplier=2, name="separable"),
            layers.Conv2DTranspose(4, 3, name="up"),
        ]
    )
    shapes = {name: param.shape for name, param in pt.open(net).items()}
    cell = next(name for name in shapes if name.startswith("both.forward")).rpartition(".")[0]
    assert shapes["embed.embeddings"] == (5, 3)
    assert shapes["conv.kernel"] == (2, None, 4)
    assert shapes["norm.beta"] == shapes["norm.moving_mean"] == (None,)
    assert (shapes[f"{cell}.kernel"], shapes[f"{cell}.bias"]) == ((None, 9), (2, 9))
    assert shapes["separable.depthwise_kernel"] == (2, 3, None, 2)
    assert shapes["separable.pointwise_kernel"] == (1, 1, None, 4)
    assert shapes["up.kernel"] == (3, 3, 4, None)
    assert "conv.bias" not in shapes
    assert not any(param.trainable for name, param in pt.open(net).items() if "moving" in name)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Dense(3), (4,)),
        (lambda: layers.Conv2D(3, 2), (5, 5, 2)),
        (lambda: layers.Conv1DTranspose(3, 2), (5, 2)),
        (lambda: layers.SeparableConv1D(3, 2), (5, 2)),
        (lambda: layers.BatchNormalization(), (5, 2)),
        (lambda: layers.LSTM(3), (5, 2)),
        (lambda: layers.GRU(3, reset_after=False), (5, 2)),
        (lambda: layers.GRU(3), (5, 2)),
        (lambda: layers.SimpleRNN(3, use_bias=False), (5, 2)),
        (lambda: layers.Bidirectional(layers.LSTM(3)), (5, 2)),
    ],
)
def test_what_is_foretold_comes_true(layer, shape):
    net = keras.Sequential([layer()])
    before = pt.open(net)
    foretold = {name: (param.shape, param.kind, param.layout) for name, param in before.items()}
    net.build((None, *shape))
    after = pt.open(net)
    assert list(before) == list(after)
    for name, (expected, kind, layout) in foretold.items():
        param = after[name]
        assert (param.kind, param.layout) == (kind, layout), name
        assert len(param.shape) == len(expected)
        assert all(e in (None, n) for e, n in zip(expected, param.shape, strict=True)), name
        assert before[name].shape == param.shape
        assert before[name].native == param.native


def test_layers_of_nested_models_that_are_not_built_have_expressions():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.both = layers.Bidirectional(layers.LSTM(3), name="both")
            self.inner = keras.Sequential([layers.Flatten(), layers.Dense(4, name="a")], name="inner")

    net = Net()
    tree = pt.open(net)
    assert len(tree) == 8
    for param in tree.values():
        assert eval(param.native, {"net": net}) is param.handle is param.live.place.layer
    assert tree["inner.a.bias"].native == "net.layers[1].layers[1]"


def test_layers_that_do_not_say_are_noted_and_layers_without_parameters_are_not():
    class Mine(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=shape[-1:], name="w")

    net = keras.Sequential(
        [layers.Flatten(), layers.MultiHeadAttention(2, 2, name="attend"), Mine(name="mine")]
    )
    tree = pt.open(net)
    assert len(tree) == 0
    assert [note.partition(":")[0] for note in tree.notes] == ["attend is not built", "mine is not built"]


def test_freezing_what_is_not_built_is_refused_with_the_call_to_make():
    net = keras.Sequential([layers.Dense(4, name="a")])
    with pytest.raises(pt.UnreadableError, match=r"a\.bias: not initialised yet; call net\(X\)"):
        pt.freeze(net, "a.bias")


# Values


DTYPES = ["float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"]
DTYPES += ["uint16", "uint32"] * (BACKEND == "tensorflow")  # torch has none, JAX no 64 bits unless told


@pytest.mark.parametrize("dtype", [d for d in DTYPES if BACKEND != "jax" or not d.endswith("64")])
def test_every_dtype_reads_as_it_is(dtype):
    param = pt.open(Holder(w=keras.Variable(np.arange(6).reshape(2, 3), dtype=dtype, trainable=False)))["w"]
    assert (param.dtype, param.value.dtype.name, param.shape) == (dtype, dtype, (2, 3))
    expected = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(
        param.value.astype("float64"), expected if dtype != "bool" else expected > 0
    )


@pytest.mark.parametrize(
    "index", [..., 0, -1, (1, 2), (slice(None), 1), (..., -1), (slice(None, None, -1), 0), ()]
)
def test_an_index_reads_as_numpy_would(index):
    param = pt.open(Holder(w=variable(np.arange(6).reshape(2, 3))))["w"]
    np.testing.assert_array_equal(param[index], param.value[index])


@pytest.mark.parametrize("index", [2, (0, 3), (0, 0, 0), [0], None])
def test_an_index_that_does_not_fit_is_an_index_error(index):
    with pytest.raises(IndexError):
        pt.open(Holder(w=variable(np.zeros((2, 3)))))["w"][index]


def test_mixed_precision_shows_what_is_stored():
    layer = layers.Dense(3, dtype="mixed_bfloat16", name="out")
    net = built(layer)
    assert layer.compute_dtype == "bfloat16"
    assert {param.dtype for param in pt.open(net).values()} == {"float32"}
    found = pt.gradients(net, cases.squares, X, per_use=True)
    theirs = [cases.numbers(g) for g in cases.own_gradients(net, X)]
    np.testing.assert_allclose(found["out.kernel"], theirs[0], rtol=2e-2)


def test_opening_reads_no_value(monkeypatch):
    net = models.sequential()

    def read(self):
        raise AssertionError("a value was read")

    monkeypatch.setattr(keras.Variable, "value", property(read))
    tree = pt.open(net)
    assert len(tree) > 30
    assert {param.kind for param in tree.values()} == {"parameter", "buffer"}


# Ties


def test_two_layers_that_hold_one_variable_are_tied():
    first = layers.Dense(4, name="a")
    first.build((None, 4))
    net = Holder(kernel=first.kernel)
    net.inner = first
    tree = pt.open(net)
    assert tree.ties == (("kernel", "a.kernel"),)
    assert tree.size == 16 + 4


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["same", "equal", "temporary", "empty"])), max_size=8
    )
)
def test_a_variable_is_tied_to_itself_alone(rows):
    originals = [variable([1.0, 1.0]) for _ in range(4)]
    empty = variable(np.zeros((0, 3)))
    held, groups = {}, {}
    for i, (which, how) in enumerate(rows):
        name = f"p{i}"
        if how == "same":
            held[name] = Holder(w=originals[which])
            groups.setdefault(which, []).append(f"{name}.w")
        elif how == "equal":
            held[name] = Holder(w=variable(ops.convert_to_numpy(originals[which])))
        elif how == "temporary":
            variable([1.0, 1.0])  # its address may come again
            held[name] = Holder(w=variable([1.0, 1.0]))
        else:
            held[name] = Holder(w=empty)
    for name, holder in held.items():
        holder.name = name
    tree = pt.open(Holder(**held))
    assert set(tree.ties) == {tuple(group) for group in groups.values() if len(group) > 1}


def test_ties_inside_a_layer_keep_both_names_and_can_be_parted():
    net = built(layers.BatchNormalization(name="norm"))
    pt.tie(net, "norm.gamma", "norm.beta")
    layer = net.layers[0]
    assert layer.beta is layer.gamma
    assert pt.open(net).ties == (("norm.gamma", "norm.beta"),)
    assert len(net.weights) == 3
    pt.untie(net, "norm.beta")
    assert layer.beta is not layer.gamma
    assert list(pt.open(net)) == ["norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance"]


def test_a_variable_in_a_list_can_be_tied():
    net = Holder(steps=[variable([1.0]), variable([2.0])])
    pt.tie(net, "steps.0", "steps.1")
    assert net.steps[0] is net.steps[1]
    assert len(net.weights) == 1


def test_what_was_compiled_before_is_forgotten_by_a_tie():
    net = built(layers.Dense(4, name="a"), layers.Dense(4, name="b"))
    net.compile("sgd", "mse")
    net.predict(X, verbose=0)
    pt.tie(net, "a.kernel", "b.kernel")
    pt.update(net, {"a.kernel": np.eye(4, dtype="float32"), "**.bias": 0})
    np.testing.assert_allclose(net.predict(X, verbose=0), X, rtol=1e-6)


def test_on_torch_its_own_list_of_parameters_follows():
    if BACKEND != "torch":
        assert not hasattr(layers.Dense(2), "named_parameters")
        return
    net = built(layers.Dense(4, name="a"), layers.Dense(4, name="b"))
    pt.tie(net, "a.kernel", "b.kernel")
    assert len(list(net.parameters())) == 3
    pt.untie(net, "b.kernel")
    assert len(list(net.parameters())) == 4


# Gradients


def test_gradients_change_nothing_and_tell_seeds_and_statistics_apart():
    net = built(layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5, seed=1))
    before = [np.array(ops.convert_to_numpy(v)) for v in net.variables]
    first = pt.gradients(net, cases.squares, X)
    second = pt.gradients(net, cases.squares, X)
    assert first.loss == second.loss
    for ours, theirs in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), theirs)


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(pt.MismatchError, match=r"a gradient needs one"):
        pt.gradients(built(layers.Dense(3)), lambda net, x: net(x), X)


def test_gradients_of_a_model_that_is_not_built_are_refused():
    with pytest.raises(pt.UnreadableError, match=r"call net\(X\)"):
        pt.gradients(keras.Sequential([layers.Dense(3)]), cases.squares, X)


def test_gradients_of_a_compiled_model_with_jit():
    net = built(layers.Dense(3, name="a"))
    net.compile("sgd", "mse", jit_compile="auto")
    net.fit(X, np.ones((2, 3)), verbose=0)
    found = pt.gradients(net, cases.squares, X)
    theirs = [cases.numbers(g) for g in cases.own_gradients(net, X)]
    np.testing.assert_allclose(found["a.kernel"], theirs[0], rtol=1e-6)


def test_gradients_of_a_loss_that_was_compiled_before():
    net = built(layers.Dense(3, name="a"))
    theirs = cases.numbers(cases.own_gradients(net, X)[0])
    if BACKEND == "jax":
        import jax

        loss = jax.jit(lambda x: cases.squares(net, x))
        loss(X)  # JAX keeps the values of now in what it compiles
        with pytest.raises(pt.UnsupportedError, match=r"reads no parameter .* call the model itself"):
            pt.gradients(net, lambda net, x: loss(x), X)
        return
    import_module(BACKEND)
    compiled = sys.modules[BACKEND].function(cases.squares) if BACKEND == "tensorflow" else cases.squares
    compiled(net, X)
    found = pt.gradients(net, compiled, X, per_use=True)
    np.testing.assert_allclose(found["a.kernel"], theirs, rtol=1e-6)
    np.testing.assert_allclose(found.uses["a.kernel"][0].gradient, theirs, rtol=1e-6)


def test_a_frozen_parameter_has_no_gradient():
    net = built(layers.Dense(3, name="a"), layers.Dense(2, name="b"))
    pt.freeze(net, "a.kernel")
    assert list(pt.gradients(net, cases.squares, X)) == ["a.bias", "b.kernel", "b.bias"]


# Optimizers and containers


def test_an_optimizer_is_state():
    net = built(layers.Dense(3))
    net.compile("adam", "mse")
    net.fit(X, np.ones((2, 3)), verbose=0)
    tree = pt.open(net.optimizer)
    assert len(tree) == len(net.optimizer.variables)
    assert {param.kind for param in tree.values()} == {"state"}
    for param, theirs in zip(tree.values(), net.optimizer.variables, strict=True):
        assert eval(param.native, {"net": net.optimizer}) is param.handle is theirs
    assert tree["iteration"].value == 1


def test_a_list_of_variables_goes_by_their_paths():
    net = built(layers.Dense(3, name="out"))
    tree = pt.open(net.weights)
    assert list(tree) == [v.path.replace("/", ".") for v in net.weights]
    assert tree[0] is not None
    assert all(eval(p.native, {"params": net.weights}) is p.handle for p in tree.values())
    pt.update(net.weights, {"**.bias": 3})
    assert (ops.convert_to_numpy(net.layers[0].bias) == 3).all()
    grads = cases.own_gradients(net, X)
    np.testing.assert_array_equal(
        pt.open(net.weights, grads=grads)[next(iter(tree))].grad, cases.numbers(grads[0])
    )
    with pytest.raises(pt.UnsupportedError, match=r"no layer around it .* give the model"):
        pt.tie({"a": variable([1.0]), "b": variable([2.0])}, "a", "b")


def test_a_dict_of_variables_goes_by_its_keys():
    params = {"w": variable([1.0]), "deep": [variable([2.0])]}
    tree = pt.open(params)
    assert list(tree) == ["w", "deep.0"]
    assert eval(tree["deep.0"].native, {"params": params}) is params["deep"][0]
    with pytest.raises(pt.MismatchError, match=r"no parameter 'v' in dict"):
        pt.open(params, grads={"v": np.ones(1)})


def test_one_variable():
    assert list(pt.open(variable([1.0]))) == ["parameter"]


# Speed, documentation, processes


def test_ten_thousand_parameters_are_listed_in_order():
    net = cases.many()
    tree = pt.open(net)
    assert [param.handle for param in tree.values()] == net.weights
    assert len(tree) == 10_000


def test_densenet_of_keras_applications():
    net = keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=10)
    tree = pt.open(net)
    assert [param.handle for param in tree.values()] == net.weights
    assert list(tree) == [variable.path.replace("/", ".") for variable in net.weights]
    assert tree.size + tree.totals["buffer"].size == net.count_params()
    assert tree.ties == ()


def test_groups_need_paths_that_differ():
    net = Holder(a=variable([1.0], name="w"), b=variable([1.0], name="w"))
    with pytest.raises(pt.UnsupportedError, match=r"a: 2 variables have the path 'w'"):
        pt.groups(net, {"a": {"lr_mult": 0.5}})


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(import_module("paratree.frameworks.keras")).failed == 0


SCRIPT = """
import sys
import keras
import paratree as pt
net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
during = set(sys.modules)
tree = pt.open(net)
pt.update(net, {"**.bias": 1})
roots_of = lambda names: {name.partition(".")[0] for name in names}
roots = roots_of(sys.modules) - roots_of(during)
print(sorted(roots & {"torch", "jax", "flax", "tensorflow", "tf_keras", "mxnet", "transformers"}), len(tree))
"""


def run(code, backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *(arguments or ("-c", code))],
        env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_opening_imports_no_other_framework(backend):
    pytest.importorskip(backend, reason=f"could not import {backend}; this test needs it")
    done = run(SCRIPT, backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "[] 2"


CONFORM = """
import json, sys
from paratree.testing import check
from tests.frameworks.cases import keras as cases
done = {}
for case in cases.CASES:
    check(case)
    done[case.name] = "passed"
print(json.dumps(done))
"""


@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_every_check_holds_on_the_other_backends(backend):
    pytest.importorskip(backend, reason=f"could not import {backend}; this test needs it")
    done = run(CONFORM, backend)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys([c.name for c in cases.CASES], "passed")


@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_the_chapter_holds_on_the_other_backends(backend):
    pytest.importorskip(backend, reason=f"could not import {backend}; this test needs it")
    chapter = str(Path(__file__).with_name("test_chapter_keras.py"))
    done = run("", backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", chapter)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_a_backend_that_is_not_known_is_refused():
    done = run(SCRIPT, "numpy")
    assert "UnsupportedError: Keras on 'numpy': not supported; set KERAS_BACKEND" in done.stderr
