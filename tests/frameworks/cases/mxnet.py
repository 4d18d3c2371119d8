"""Models of MXNet Gluon for the conformance suite; classic arrays (mx.nd) where not said otherwise."""

import ml_dtypes
import numpy as np

from paratree.testing import Case, Fact, Loss
from tests.mxnet_numpy import mxnet as mx

autograd, gluon, nn = mx.autograd, mx.gluon, mx.gluon.nn
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])  # what Gluon takes for bfloat16


def array_of(array):
    values = array.asnumpy()
    return values.view(np.uint16).view(ml_dtypes.bfloat16) if values.dtype == BFLOAT16 else values


def facts(net):
    """Return what save_parameters goes through, in its order."""
    return [
        Fact(
            name,
            p.data().shape,
            array_of(p.data()).dtype.name,
            array_of(p.data()),
            "parameter" if p._differentiable and not isinstance(p, gluon.Constant) else "buffer",
        )
        for name, p in net._collect_params_with_prefix().items()
    ]


def without_values(net):
    return [
        Fact("0.weight", (8, None), "float32", None),
        Fact("0.bias", (8,), "float32", None),
        Fact("1.weight", (1, None), "float32", None),
        Fact("1.bias", (1,), "float32", None),
    ]


def with_biases(net):
    """Return what is there after initialize(): of what has a known shape, the values."""
    values = {"0.bias": array_of(net[0].bias.data()), "1.bias": array_of(net[1].bias.data())}
    return [fact._replace(value=values.get(fact.name)) for fact in without_values(net)]


def size(net):
    parameters = net.collect_params().values()
    return sum(p.data().size for p in parameters if p._differentiable and not isinstance(p, gluon.Constant))


def made(build, *batch, init=None):
    """Return what builds a model, initialises it, the same each time, and shows it a batch."""

    def make():
        mx.random.seed(0)
        net = build()
        net.initialize(init or mx.init.Uniform(0.5))
        if batch:
            net(*batch)
        return net

    return make


def numpy_mode(function):
    """Return the function, run with NumPy's shapes and arrays switched on (npx.set_np)."""

    def run(*arguments):
        with mx.util.np_shape(True), mx.util.np_array(True):
            return function(*arguments)

    return run


def squares(net, *batch):
    output = net(*batch)
    return (output * output).mean()


def native_gradients(*batch):
    """Return the gradients that backward has written, under the first name of each parameter."""

    def gradients(net):
        with autograd.record():
            value = squares(net, *batch)
        value.backward()
        first = {id(p): (name, p) for name, p in reversed(net._collect_params_with_prefix().items())}
        return {
            name: array_of(p.grad()) if p.data()._fresh_grad else None
            for name, p in first.values()
            if p.grad_req != "null"
        }

    return gradients


def loss(*batch, uses=None):
    return Loss(squares, batch, native_gradients(*batch), uses or {})


mx.random.seed(1)
X = mx.nd.random.uniform(shape=(2, 4))
WORDS = mx.nd.array([[1, 2, 3], [3, 0, 5]])
IMAGES = mx.nd.random.uniform(shape=(2, 3, 6, 6))
SEQUENCES = mx.nd.random.uniform(shape=(2, 5, 4))
with mx.util.np_shape(True), mx.util.np_array(True):
    NUMPY_X = mx.np.random.uniform(size=(2, 4))


def sequential(*blocks, kind=nn.HybridSequential):
    net = kind()
    net.add(*blocks)
    return net


def mlp():
    return sequential(
        nn.Dense(8, activation="relu"), nn.Dense(8), nn.Dense(8, activation="relu"), nn.Dense(1)
    )


def plain_mlp():
    return sequential(nn.Dense(8, activation="relu"), nn.Dense(8), nn.Dense(8), kind=nn.Sequential)


def hybridized():
    net = mlp()
    net.hybridize(static_alloc=True)
    return net


def shared_parameters():
    shared = nn.Dense(8, activation="relu")
    again = nn.Dense(8, activation="relu", params=shared.params)
    return sequential(nn.Dense(8), shared, again, nn.Dense(1))


def shared_block():
    shared = nn.Dense(8, activation="relu")
    net = sequential(nn.Dense(8), shared, shared, nn.Dense(1))
    net.hybridize()
    return net


class Nested(gluon.Block):
    """Blocks in blocks, parameters of its own, one of no axes, one empty, a constant."""

    def __init__(self):
        super().__init__()
        self.net = sequential(nn.Dense(8, activation="relu"), nn.Dense(6))
        self.a, self.b = nn.Dense(2, in_units=6), nn.Dense(2, in_units=6)
        self.scale = self.params.get("scale", shape=(), init=Half())
        self.empty = self.params.get("empty", shape=(0, 3), allow_deferred_init=True)
        self.ones = self.params.get_constant("ones", mx.np.ones(2))

    def forward(self, x):
        hidden = self.net(x)
        return self.scale.data() * (self.a(hidden) + self.b(hidden)) + self.ones.data()


class Half(mx.init.Initializer):
    """Gluon's own cannot initialise an array of no axes."""

    def _init_weight(self, _, array):
        array[()] = 0.5


def nested():
    """Return the net; an empty parameter has a value in Gluon only if it is loaded: shape 0 means unknown."""
    net = made(Nested)()
    net.params.load_dict({net.empty.name: mx.np.zeros((0, 3))}, ctx=mx.cpu(), allow_missing=True)
    net(NUMPY_X)
    return net


class LanguageModel(gluon.Block):
    """An embedding that is the output layer, too."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = gluon.rnn.LSTM(6, num_layers=2, layout="NTC", input_size=6)
        self.head = nn.Dense(11, use_bias=False, flatten=False, params=self.embed.params)

    def forward(self, words):
        return self.head(self.rnn(self.embed(words)))


class Attention(gluon.HybridBlock):
    """Gluon 1.9 has no attention block: one as its users write it."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (
            nn.Dense(4, flatten=False, in_units=4) for _ in range(4)
        )
        self.norm = nn.LayerNorm(in_channels=4)

    def hybrid_forward(self, F, x):
        scores = F.batch_dot(self.query(x), self.key(x), transpose_b=True)
        return self.norm(self.out(F.batch_dot(F.softmax(scores), self.value(x))) + x)


def cells():
    return gluon.rnn.GRU(5, bidirectional=True, input_size=4, layout="NTC")


def normed():
    net = sequential(
        nn.Conv2D(8, 3), nn.BatchNorm(), nn.Activation("relu"), nn.BatchNorm(scale=False), nn.Dense(2)
    )
    net.hybridize()
    return net


class Halves(gluon.Block):
    """Parameters in bfloat16, with which Gluon's layers cannot calculate on every processor."""

    def __init__(self):
        super().__init__()
        self.weight = self.params.get("weight", shape=(3, 4), dtype=BFLOAT16)
        self.other = self.params.get("other", shape=(3, 4), dtype=BFLOAT16)


def many():
    return sequential(*(sequential(*(nn.Dense(2, in_units=2) for _ in range(50))) for _ in range(100)))


def many_facts(net):
    """Return the names and shapes; initialising so many takes MXNet most of a minute on a busy machine."""
    return [
        Fact(name, p.shape, np.dtype(p.dtype).name, None)
        for name, p in net._collect_params_with_prefix().items()
    ]


def for_numpy(case_loss):
    return Loss(
        numpy_mode(case_loss.function), case_loss.batch, numpy_mode(case_loss.gradients), case_loss.uses
    )


CASES = [
    Case(
        "plain", made(mlp, X), facts, size, loss=loss(X, uses={"0.weight": 1}), tie=("1.weight", "2.weight")
    ),
    Case("not hybrid", made(plain_mlp, X), facts, size, loss=loss(X), tie=("1.bias", "2.bias")),
    Case("hybridized", made(hybridized, X), facts, size, loss=loss(X), tie=("1.weight", "2.weight")),
    Case(
        "NumPy arrays",
        numpy_mode(made(mlp, NUMPY_X)),
        numpy_mode(facts),
        size,
        loss=for_numpy(loss(NUMPY_X)),
        tie=("1.weight", "2.weight"),
    ),
    Case(
        "nested, scalar, empty",
        numpy_mode(nested),
        numpy_mode(facts),
        numpy_mode(size),
        loss=for_numpy(loss(NUMPY_X, uses={"scale": 1, "a.weight": 1})),
        tie=("a.weight", "b.weight"),
    ),
    Case(
        "shared parameters",
        made(shared_parameters, X),
        facts,
        size,
        ties=(("1.weight", "2.weight"), ("1.bias", "2.bias")),
        loss=loss(X, uses={"1.weight": 2, "2.bias": 2, "0.weight": 1}),
    ),
    Case(
        "shared block",
        made(shared_block, X),
        facts,
        size,
        ties=(("1.weight", "2.weight"), ("1.bias", "2.bias")),
        loss=loss(X, uses={"1.weight": 2, "2.bias": 2, "0.weight": 1}),
    ),
    Case(
        "tied embedding, RNN",
        made(LanguageModel, WORDS),
        facts,
        size,
        ties=(("embed.weight", "head.weight"),),
        loss=loss(WORDS, uses={"head.weight": 2}),
        tie=("rnn._unfused.0.h2h_weight", "rnn._unfused.1.h2h_weight"),
    ),
    Case("GRU", made(cells, SEQUENCES), facts, size, loss=loss(SEQUENCES)),
    Case(
        "not initialised",
        mlp_of_two := lambda: sequential(nn.Dense(8), nn.Dense(1)),
        without_values,
        lambda _: 9,
        advice="net.initialize()",
    ),
    Case("deferred", made(mlp_of_two), with_biases, lambda _: 9, advice="net(X)"),
    Case("BatchNorm", made(normed, IMAGES), facts, size, loss=loss(IMAGES)),
    Case(
        "attention",
        made(Attention, SEQUENCES),
        facts,
        size,
        loss=loss(SEQUENCES),
        tie=("key.bias", "query.bias"),
    ),
    Case("bfloat16", made(Halves, init=mx.init.Constant(0.75)), facts, size, tie=("weight", "other")),
    Case("10,000 parameters", many, many_facts, lambda _: 30_000, advice="net.initialize()"),
]
