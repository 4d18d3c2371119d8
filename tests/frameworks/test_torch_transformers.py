"""Real architectures of transformers in PyTorch, with random weights: names, counts and ties are its own."""

import numpy as np
import pytest

import paratree as pt

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
transformers = pytest.importorskip(
    "transformers", reason="could not import transformers; these tests need it"
)


@pytest.fixture(scope="module")
def bert():
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64
    )
    return transformers.BertForMaskedLM(config).eval()


@pytest.fixture(scope="module")
def gpt2():
    config = transformers.GPT2Config(vocab_size=99, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("which", ["bert", "gpt2"])
def test_names_shapes_and_counts_are_the_frameworks(which, request):
    net = request.getfixturevalue(which)
    tree = pt.open(net)
    assert list(tree.select(kind="parameter")) == [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert list(tree.select(kind="buffer")) == [n for n, _ in net.named_buffers(remove_duplicate=False)]
    assert tree.size == net.num_parameters()
    assert tree.totals["parameter"].count == len(list(net.parameters()))


def test_the_tied_head_of_gpt2_is_counted_once(gpt2):
    tree = pt.open(gpt2)
    assert tree.ties == (("transformer.wte.weight", "lm_head.weight"),)
    assert tree.expanded_size - tree.size == 99 * 32
    assert tree["transformer.h.0.attn.c_attn.weight"].layout == "in out"


def test_the_tied_head_of_bert_is_counted_once(bert):
    tied = {name for group in pt.open(bert).ties for name in group}
    assert "bert.embeddings.word_embeddings.weight" in tied
    assert "cls.predictions.decoder.weight" in tied


def test_the_gradient_of_the_tied_head_is_the_sum_of_embedding_and_output(gpt2):
    words = torch.tensor([[1, 5, 7, 1]])

    def loss(net, words):
        return net(input_ids=words, labels=words).loss

    found = pt.gradients(gpt2, loss, words, per_use=True)
    gpt2.zero_grad()
    loss(gpt2, words).backward()
    own = gpt2.lm_head.weight.grad.numpy()
    assert [use.by for use in found.uses["lm_head.weight"]] == ["embedding", "linear"]
    np.testing.assert_allclose(found["lm_head.weight"], own, atol=1e-6 * np.abs(own).max())
    total = sum(use.gradient for use in found.uses["lm_head.weight"])
    np.testing.assert_allclose(total, own, atol=1e-6 * np.abs(own).max())


@pytest.mark.parametrize("which", ["bert", "gpt2"])
def test_every_expression_gives_the_parameter(which, request):
    net = request.getfixturevalue(which)
    for param in pt.open(net).values():
        assert eval(param.native, {"net": net}) is param.handle


@pytest.mark.parametrize("which", ["bert", "gpt2"])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("model.safetensors", None),
        ("model.safetensors", "20KB"),
        ("pytorch_model.bin", None),
        ("pytorch_model.bin", "20KB"),
    ],
)
def test_from_pretrained_takes_what_is_saved(which, name, size, request, tmp_path):
    net = request.getfixturevalue(which)
    net.config.save_pretrained(tmp_path)
    pt.save(net, tmp_path / name, shard_size=size, verify=True)
    loaded = type(net).from_pretrained(tmp_path)
    assert pt.diff(net, loaded).same
    assert pt.open(loaded).ties == pt.open(net).ties
