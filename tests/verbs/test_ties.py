"""Tied groups and what they save; the table of formats."""

from paratree.registry import format_to_write, known_formats
from paratree.verbs.formats import formats
from paratree.verbs.ties import ties
from tests.verbs.trees import listed, transformer, tree_of


def test_a_tied_group():
    (group,) = ties(transformer()).groups
    assert group.names == ("model.embed.weight", "lm_head.weight")
    assert (group.shape, group.dtype) == ((1000, 64), "float32")
    assert (group.nbytes, group.expanded_nbytes) == (256_000, 512_000)


def test_no_ties_is_false():
    found = ties(tree_of("a", "b"))
    assert not found
    assert found.groups == ()
    assert ties(transformer())


def test_a_group_of_unknown_width():
    tree = tree_of(listed("a", dtype="odd", memory=1), listed("b", dtype="odd", memory=1))
    (group,) = ties(tree).groups
    assert (group.nbytes, group.expanded_nbytes) == (None, None)


def test_every_format_is_listed_with_its_facts():
    found = {facts.name: facts for facts in formats()}
    assert len(found) == len(known_formats())
    assert found["safetensors"].suffixes == (".safetensors", ".safetensors.index.json")
    assert found["safetensors"].lazy == "yes"
    written = {name for name, facts in found.items() if facts.writes}
    assert written == {
        "Flax msgpack", "GGUF", "Keras", "MXNet params", "NumPy", "ONNX", "Orbax", "PyTorch", "PyTorch DCP",
        "TensorFlow", "safetensors",
    }  # fmt: skip
    assert {name for name, facts in found.items() if facts.option} == written
    for facts in found.values():
        assert facts.option is None or facts.name == format_to_write("m", facts.option).NAME
    extras = {name: facts.extra for name, facts in found.items() if facts.extra}
    assert extras == {"GGUF": "gguf", "Orbax": "orbax"}
