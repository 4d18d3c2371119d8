"""Parameter management with Keras: look at any parameter, share parameters, watch them learn.

Run it: python examples/parameter_management/keras_chapter.py. The four scripts of this folder differ only in
how the models are built and trained; from "The chapter" on they are the same, line by line.
"""

import keras
import numpy as np

import paratree as pt

# How the models are built and trained in Keras 3, on TensorFlow, JAX or torch

keras.utils.set_random_seed(0)
Dense, Flatten, Sequential = keras.layers.Dense, keras.layers.Flatten, keras.Sequential
DATA = np.random.default_rng(0)
X = DATA.normal(size=(64, 4)).astype("float32")
Y = np.sin(X.sum(1, keepdims=True))


def mlp():
    """Return a multilayer perceptron with one hidden layer that has not seen data yet."""
    return Sequential([Flatten(), Dense(8, activation="relu"), Dense(1)])


def shown(net):
    """Show the net data once, which makes its shapes known; return what is to be opened, and its loss."""
    net(X)
    return net, loss


def tied():
    """Return a net whose second and third hidden layer are one layer, used twice."""
    shared = Dense(8, activation="relu")
    return shown(Sequential([Flatten(), Dense(8, activation="relu"), shared, shared, Dense(1)]))


class NestMLP(keras.Model):
    """A net inside a net."""

    def __init__(self):
        super().__init__()
        self.net = Sequential([Dense(16, activation="relu"), Dense(8, activation="relu")])
        self.linear = Dense(4)

    def call(self, inputs):
        """Run both nets."""
        return self.linear(self.net(inputs))


def nested():
    """Return a net with nets inside."""
    return shown(Sequential([NestMLP(), Dense(4), NestMLP()]))


def loss(net, inputs, targets):
    """Return the mean squared error, one number."""
    return keras.ops.mean(keras.ops.square(keras.ops.subtract(net(inputs), targets)))


def trainer(net, loss):
    """Return a function that takes one step of the optimizer and gives the net back."""
    net.compile(keras.optimizers.SGD(0.2), "mse")

    def step(net):
        net.train_on_batch(X, Y)
        return net

    return step


# The chapter


def title(text):
    """Print the title of a section."""
    print(f"\n{text}\n{'-' * len(text)}")


def rows(tree):
    """Print a line for every parameter: unknown dimensions are question marks."""
    for name, param in tree.items():
        print(f"  {name:<40}{' × '.join('?' if n is None else str(n) for n in param.shape):<10}{param.dtype}")


def norm(values):
    """Return the length of an array as a vector."""
    return float(np.linalg.norm(np.asarray(values, np.float64)))


def access():
    """Look at the parameters of a net: before it has seen data, by layer, one by one, all at once."""
    title("A net with one hidden layer, before it has seen data")
    net = mlp()
    rows(pt.open(net))
    try:
        print(pt.open(net).layers[1].weight.value)
    except pt.UnreadableError as error:
        print(f"  {error}")

    title("The same net when it has seen data")
    source, loss = shown(net)
    tree = pt.open(source)
    rows(tree)
    print(f"  {tree.size} values, {tree.nbytes} bytes")

    title("One layer, and one parameter of it")
    layer = tree.layers[1]
    print(f"  {list(layer)}")
    bias = layer.bias
    print(f"  {bias.native} is a {type(bias.handle).__name__}: {bias.value.shape} {bias.value.dtype}")
    print(f"  {bias.name} = {bias.value}; its gradient: {bias.grad}")
    found = pt.gradients(source, loss, X, Y)
    print(f"  after backpropagation the gradient has the shape {found[bias.name].shape}")

    title("All at once, nested too")
    source, _ = nested()
    tree = pt.open(source)
    rows(tree)
    print(f"  {len(tree.select(role='bias'))} biases, {tree.select(role='bias').size} values")


def ties():
    """Share a layer: it is one parameter, changes once, and gets the gradients of both uses."""
    title("Tied parameters")
    source, loss = tied()
    tree = pt.open(source)
    found = pt.gradients(source, loss, X, Y, per_use=True)
    shared = next(name for name, uses in found.uses.items() if len(uses) == 2)
    group = next((names for names in tree.ties if shared in names), (shared,))
    print(f"  one parameter under {len(group)} name{'s' * (len(group) > 1)}: {', '.join(group)}")
    print(f"  {tree.totals['parameter'].count} parameters, {tree.size} values: the shared layer counts once")
    source = pt.update(source, {group[-1]: lambda weight: weight * 0 + 0.1})
    seen = pt.open(source)[group[0]].value.ravel()[0]
    print(f"  a change through {group[-1]} is seen through {group[0]}: {seen:.1f}")
    first, second = (use.gradient for use in found.uses[shared])
    print(f"  its gradient is the sum of its two uses: {np.allclose(first + second, found[shared])}")


def exercise():
    """Train a net with a shared layer, and observe the parameters and gradients of each layer."""
    title("A net with a shared layer learns")
    source, loss = tied()
    step = trainer(source, loss)
    start = pt.gradients(source, loss, X, Y).loss
    for number in range(101):
        found = pt.gradients(source, loss, X, Y, per_use=True)
        before = {name: np.array(param.value) for name, param in pt.open(source).items()}
        source = step(source)
        if number % 50 == 0:
            observe(number, pt.open(source), before, found)
    end = pt.gradients(source, loss, X, Y).loss
    print(f"\n  the loss fell from {start:.3f} to {end:.3f}: {end < start / 2}")


def observe(number, tree, before, found):
    """Print the norms of weight, gradient and update of each layer, and of the gradient of each use."""
    print(f"\n  step {number}, loss {found.loss:.3f}")
    print(f"  {'layer':<10}{'weight':>9}{'gradient':>10}{'update':>9}   gradient of each use")
    for layer in tree.layers:
        name, weight = layer.weight.name, layer.weight.value
        uses = ", ".join(f"{norm(use.gradient):.4f} ({use.by})" for use in found.uses[name])
        update = norm(weight - before[name])
        print(f"  {layer.prefix:<10}{norm(weight):>9.4f}{norm(found[name]):>10.4f}{update:>9.4f}   {uses}")


if __name__ == "__main__":
    access()
    ties()
    exercise()
