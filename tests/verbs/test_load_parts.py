"""pt.load of a part of a source into a part of a model."""

import re

import pytest

import paratree as pt
from tests.verbs.nets import bits, nn, refused, small, statuses, torch


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
