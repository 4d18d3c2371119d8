"""Models of PyTorch for the conformance suite."""

import ml_dtypes
import torch
from torch import nn

from paratree.testing import Case, Fact, Loss


def array_of(tensor):
    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def facts(net):
    """Return what state_dict says, in its order, with the kinds of named_parameters."""
    parameters = dict(net.named_parameters(remove_duplicate=False))
    return [
        Fact(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            array_of(tensor),
            "parameter" if name in parameters else "buffer",
        )
        for name, tensor in net.state_dict().items()
    ]


def lazy_facts(net):
    return [
        Fact("0.weight", (8, None), "float32", None),
        Fact("0.bias", (8,), "float32", None),
        Fact("2.weight", (1, None), "float32", None),
        Fact("2.bias", (1,), "float32", None),
    ]


def size(net):
    return sum(parameter.numel() for parameter in net.parameters())


def seeded(build):
    def make():
        torch.manual_seed(0)
        return build()

    return make


def squares(net, *batch):
    output = net(*batch)
    output = output[0] if isinstance(output, tuple) else output
    return (output.float() ** 2).mean()


def native_gradients(*batch):
    def gradients(net):
        squares(net, *batch).backward()
        return {n: None if p.grad is None else array_of(p.grad) for n, p in net.named_parameters()}

    return gradients


def loss(*batch, uses=None):
    return Loss(squares, batch, native_gradients(*batch), uses or {})


torch.manual_seed(1)
X = torch.rand(2, 4)
WORDS = torch.tensor([[1, 2, 3], [3, 0, 5]])


def mlp():
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1)
    )


def tied_mlp():
    shared = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 1))


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 2), "b-1": nn.Linear(6, 2)})
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.empty = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x):
        hidden = self.net(x)
        return self.scale * (self.heads["a"](hidden) + self.heads["b-1"](hidden))


class LanguageModel(nn.Module):
    """An embedding that is the output layer, too."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words):
        return self.head(self.rnn(self.embed(words))[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.attend(x, x, x, need_weights=False)[0])


def normed():
    return nn.Sequential(nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(12, 2))


def many():
    return nn.Sequential(*[nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)]) for _ in range(100)])


CASES = [
    Case("plain", seeded(mlp), facts, size, loss=loss(X, uses={"0.weight": 1}), tie=("2.weight", "4.weight")),
    Case("nested", seeded(Nested), facts, size, loss=loss(X), tie=("heads.a.weight", "heads.b-1.weight")),
    Case(
        "tied layer",
        seeded(tied_mlp),
        facts,
        size,
        ties=(("2.weight", "4.weight"), ("2.bias", "4.bias")),
        loss=loss(X, uses={"2.weight": 2, "4.bias": 2, "0.weight": 1}),
    ),
    Case(
        "tied embedding, RNN",
        seeded(LanguageModel),
        facts,
        size,
        ties=(("embed.weight", "head.weight"),),
        loss=loss(WORDS, uses={"head.weight": 2}),
        tie=("rnn.weight_hh_l0", "rnn.weight_hh_l1"),
    ),
    Case(
        "lazy",
        lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1)),
        lazy_facts,
        lambda net: 9,
        advice="net(X)",
    ),
    Case("BatchNorm", seeded(normed), facts, size, loss=loss(torch.rand(2, 3, 4))),
    Case("attention", seeded(Attention), facts, size, loss=loss(torch.rand(2, 5, 4))),
    Case("bfloat16", seeded(lambda: mlp().bfloat16()), facts, size, loss=loss(X.bfloat16())),
    Case("10,000 parameters", seeded(many), facts, size),
]
