"""A network in PyTorch, and its port to flax."""

from parity import Pair, Side, normal


def baseline():
    from net_torch import Net

    return Net()


def candidate():
    from net_flax import Net

    return Net()


pair = Pair(
    Side("torch", baseline),
    Side("jax", candidate),
    {"x": normal(4, 3, 10, 10)},
    layouts={"x": "channels last"},
)
