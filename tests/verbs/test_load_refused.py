"""What pt.load refuses: the cause, the names, and options that can be pasted."""

import pickle
import re

import pytest

import paratree as pt
from paratree.core.array import RefusedArray
from paratree.core.param import Param
from paratree.render import load as render
from tests.verbs.held import tree_of, write
from tests.verbs.nets import bits, nn, normal, refused, small, statuses, torch


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
