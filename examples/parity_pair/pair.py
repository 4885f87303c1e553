"""Two residual networks in PyTorch: is the second one, written by hand, a right port?"""

from parity import Pair, Side, normal


def baseline():
    from net import Net

    return Net()


def candidate():
    from port import Net

    return Net()


pair = Pair(Side("torch", baseline), Side("torch", candidate), {"x": normal(2, 3, 20, 20)})
