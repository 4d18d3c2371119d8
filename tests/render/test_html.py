"""The notebook's tree: no script, everything escaped, bounded."""

from html.parser import HTMLParser

import pytest

from paratree.core.errors import printable
from paratree.render.html import foldable
from paratree.verbs.outline import Branch, outline
from paratree.verbs.show import show
from tests.render.hostile import NAMES
from tests.verbs.trees import checkpoint, listed, transformer, tree_of

ALLOWED = {
    "div": {"class"},
    "span": {"class"},
    "details": {"open"},
    "summary": set(),
    "bdi": {"title"},
    "style": set(),
    "br": set(),
}


class Seen(HTMLParser):
    """Checks that only known tags and attributes are there and that they nest; keeps texts and titles."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.titles, self.tags = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED
        assert {name for name, _ in attrs} <= ALLOWED[tag]
        assert all(
            (value or "").startswith("pt-") or value == "paratree" for name, value in attrs if name == "class"
        )
        self.titles += [value for name, value in attrs if name == "title"]
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def test_a_transformer():
    seen = Seen(foldable(transformer()))
    text = "".join(seen.texts)
    assert text.startswith("nettest · 23 tensors · 212 k parameters (276 k with ties expanded)")
    assert "tied 1 = model.embed.weight" in text
    assert "model.layers.{0..3}.mlp.up.weight" in seen.titles
    assert "buffer" in text
    assert "23 of 23 readable · 1 tied group · 20 tensors folded into 5 rows" in text
    assert "--" not in text


def test_two_levels_are_open():
    tree = tree_of(*[f"{a}.{b}.{c}.{d}" for a in "ab" for b in "cd" for c in "ef" for d in "gh"])
    opened = [("open" in attributes) for tag, attributes in Seen(foldable(tree)).tags if tag == "details"]
    assert opened == [True, True, False, False, True, False, False] * 2


def test_the_display_methods_of_a_tree():
    assert transformer()._repr_html_() == foldable(transformer())
    assert "optimizer states" in foldable(checkpoint())


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_stay_text(name):
    tree = tree_of(
        listed(name, dtype=name, memory=1),
        listed(f"{name}.{name}", problem=name),
        listed("a.b", dtype=name, memory=1),
        source=name,
        format=name,
        meta={name: name},
        notes=[name],
    )
    html = foldable(tree)
    seen = Seen(html)
    assert all(text.isprintable() for text in seen.texts + seen.titles)
    assert html.isprintable()
    assert printable(name)[:300] in "".join(seen.texts)


def test_no_more_than_200_lines():
    tree = tree_of(*[listed(f"{i}.{j}", (i + 1, j + 1)) for i in range(50) for j in range(50)])
    seen = Seen(foldable(tree))
    lines = sum(tag == "summary" or attributes.get("class") == "pt-row" for tag, attributes in seen.tags)
    assert lines == 200
    assert "… 2304 more" in "".join(seen.texts)
    assert "more" not in "".join(Seen(foldable(transformer())).texts)


def test_a_deep_name_does_not_nest_without_end():
    tree = tree_of(".".join("ab" * 5000), ".".join("abc" * 10) + ".x", ".".join("abc" * 10) + ".y")
    Seen(foldable(tree))


def test_an_empty_tree_and_one_without_a_name():
    assert "0 tensors" in "".join(Seen(foldable(tree_of())).texts)
    assert "scalar" in "".join(Seen(foldable(tree_of(listed("", ())))).texts)


def test_branches_sum_up_and_chains_are_joined():
    root = outline(show(transformer()).rows)
    assert (root.rows, root.tensors, root.size) == (8, 23, transformer().size)
    (first, model), (last, head) = root.children
    assert (first, last) == ("model", "lm_head.weight")
    assert isinstance(model, Branch)
    assert [name for name, _ in model.children] == [".embed.weight", ".position_ids", ".layers.{0..3}"]
    assert head.repeats
