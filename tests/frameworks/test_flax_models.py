"""Real models in Flax, with random weights: those of transformers, and of the Flax documentation."""

import numpy as np
import pytest

import paratree as pt

jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")
flax = pytest.importorskip("flax", reason="could not import flax; these tests need it")
nnx = pytest.importorskip("flax.nnx", reason="could not import flax; these tests need it")
optax = pytest.importorskip("optax", reason="could not import optax; these tests need it")

jnp, nn = jax.numpy, flax.linen
KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (2, 28, 28, 1))
WORDS = jnp.array([[1, 2, 3, 4], [5, 4, 3, 2]])


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep=".")


# transformers


@pytest.fixture(scope="module")
def hub():
    transformers = pytest.importorskip(
        "transformers", reason="could not import transformers; these tests need it"
    )
    if not hasattr(transformers, "FlaxBertModel"):
        pytest.skip("this version of transformers has no Flax models; these tests need 4.57")
    return transformers


@pytest.fixture
def bert(hub):
    config = hub.BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=20,
        max_position_embeddings=12,
    )  # fmt: skip
    return hub.FlaxBertModel(config, input_shape=(1, 4))


@pytest.fixture
def gpt2(hub):
    config = hub.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=20, n_positions=12)
    return hub.FlaxGPT2LMHeadModel(config, input_shape=(1, 4))


def test_bert_has_the_names_and_values_of_its_params(bert):
    tree, theirs = pt.open(bert), flat(bert.params)
    assert [(name, param.shape) for name, param in tree.items()] == [
        (n, leaf.shape) for n, leaf in theirs.items()
    ]
    assert tree.size == sum(leaf.size for leaf in theirs.values())
    assert (tree.source, tree.ties) == ("FlaxBertModel", ())
    for name, leaf in theirs.items():
        np.testing.assert_array_equal(tree[name].value, leaf)
        assert tree[name].trainable is True
    kernel = tree["encoder.layer.0.attention.self.query.kernel"]
    assert kernel.native == "net.params['encoder']['layer']['0']['attention']['self']['query']['kernel']"
    assert eval(kernel.native, {"net": bert}) is kernel.handle


def test_the_tied_head_of_gpt2_is_one_parameter_counted_once_and_used_twice(gpt2):
    tree = pt.open(gpt2)
    assert [*tree] == [*flat(gpt2.params)]
    assert tree.size == sum(leaf.size for leaf in jax.tree.leaves(gpt2.params))
    assert not [name for name in tree if "lm_head" in name]

    def loss(net, words):
        return (net(words).logits ** 2).mean()

    found = pt.gradients(gpt2, loss, WORDS, per_use=True)
    assert [use.by for use in found.uses["transformer.wte.embedding"]] == ["gather", "dot_general"]
    theirs = jax.grad(lambda params: (gpt2(WORDS, params=params).logits ** 2).mean())(gpt2.params)
    for name, gradient in flat(theirs).items():
        np.testing.assert_array_equal(found[name], gradient)
    grads = pt.open(gpt2, grads=theirs)["transformer.wte.embedding"].grad
    np.testing.assert_array_equal(grads, theirs["transformer"]["wte"]["embedding"])


def test_the_params_of_a_model_are_set_and_parted(gpt2):
    assert pt.update(gpt2, {"**.ln_f.bias": 0.5}) is gpt2
    assert (gpt2.params["transformer"]["ln_f"]["bias"] == 0.5).all()
    parted = pt.freeze(gpt2, "transformer.h.**")
    assert [*pt.open(parted.trainable)] == [name for name in pt.open(gpt2) if ".h." not in name]
    assert jax.tree.structure(pt.groups(gpt2, {"**.bias": {}}).labels) == jax.tree.structure(gpt2.params)
    tied = pt.tie(gpt2, "transformer.h.0.ln_1.scale", "transformer.h.1.ln_1.scale")
    ours = gpt2(WORDS, params=tied.expand(tied.variables)).logits
    np.testing.assert_array_equal(ours, gpt2(WORDS).logits)


def test_a_model_that_is_not_initialised_has_shapes(hub, bert):
    bare = hub.FlaxBertModel(bert.config, input_shape=(1, 4), _do_init=False)
    tree = pt.open(bare)
    assert {name: param.shape for name, param in tree.items()} == {
        name: param.shape for name, param in pt.open(bert).items()
    }
    with pytest.raises(
        pt.UnreadableError, match=r"run params = net.init_weights\(net.key, net.input_shape\)"
    ):
        _ = tree["pooler.dense.bias"].value
    with pytest.raises(pt.UnsupportedError, match="not initialised yet"):
        pt.freeze(bare, "pooler.dense.bias")


def test_a_model_of_transformers_for_pytorch_is_one_of_pytorch(hub):
    pytest.importorskip("torch", reason="could not import torch; these tests need it")
    config = hub.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=12)
    assert pt.open(hub.GPT2LMHeadModel(config)).format == "PyTorch"


# The models of the Flax documentation


class CNN(nn.Module):
    """The network for MNIST of the linen guide."""

    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(nn.relu(nn.Conv(32, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.avg_pool(nn.relu(nn.Conv(64, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class NNXCNN(nnx.Module):
    """The network for MNIST of the NNX guide."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.batch_norm1 = nnx.BatchNorm(32, rngs=rngs)
        self.dropout1 = nnx.Dropout(0.025)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.batch_norm2 = nnx.BatchNorm(64, rngs=rngs)
        self.linear1 = nnx.Linear(3136, 256, rngs=rngs)
        self.linear2 = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.batch_norm1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.batch_norm2(self.conv2(x))), (2, 2), (2, 2))
        return self.linear2(nnx.relu(self.linear1(x.reshape(len(x), -1))))


class TransformerBlock(nnx.Module):
    def __init__(self, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(16, rngs=rngs), nnx.LayerNorm(16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 16, rngs=rngs, decode=False)
        self.linear1, self.linear2 = nnx.Linear(16, 64, rngs=rngs), nnx.Linear(64, 16, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(nnx.relu(self.linear1(self.norm2(x))))


class MiniGPT(nnx.Module):
    """Blocks between an embedding and the head that is the embedding, too."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(20, 16, rngs=rngs)
        self.blocks = nnx.List([TransformerBlock(rngs) for _ in range(2)])

    def __call__(self, words):
        x = self.embed(words)
        for block in self.blocks:
            x = block(x)
        return self.embed.attend(x)


def test_the_linen_network_for_mnist():
    variables = CNN().init(KEY, IMAGES)
    tree, theirs = pt.open(variables), flat(variables["params"])
    assert [(name, param.shape) for name, param in tree.items()] == [
        (n, leaf.shape) for n, leaf in theirs.items()
    ]
    assert tree.size == sum(leaf.size for leaf in theirs.values()) == 824_458
    assert [layer.prefix for layer in tree.layers] == ["Conv_0", "Conv_1", "Dense_0", "Dense_1"]


def test_the_nnx_network_for_mnist_in_training():
    model = NNXCNN(nnx.Rngs(0))
    theirs = {".".join(map(str, path)): v for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    tree = pt.open(model)
    assert {name for name, param in tree.items() if param.kind == "parameter"} == set(theirs)
    assert tree.size == sum(v.get_value().size for v in theirs.values())
    assert len(tree.select(kind="buffer")) == 4

    def loss(model, images):
        return (model(images) ** 2).mean()

    found = pt.gradients(model, loss, IMAGES)
    grads = nnx.grad(loss)(model, IMAGES)
    for path, gradient in nnx.to_flat_state(grads):
        np.testing.assert_array_equal(found[".".join(map(str, path))], gradient.get_value())


def test_a_small_transformer_of_nnx_uses_its_embedding_twice():
    model = MiniGPT(nnx.Rngs(0))

    def loss(model, words):
        return optax.softmax_cross_entropy_with_integer_labels(model(words), words).mean()

    found = pt.gradients(model, loss, WORDS, per_use=True)
    assert [use.by for use in found.uses["embed.embedding"]] == ["gather", "dot_general"]
    assert {len(uses) for name, uses in found.uses.items() if name.startswith("blocks")} == {1}
    assert [layer.prefix for layer in pt.open(model).layers[:3]] == [
        "embed",
        "blocks.0.norm1",
        "blocks.0.norm2",
    ]
