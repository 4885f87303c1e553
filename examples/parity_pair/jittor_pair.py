"""A residual network in PyTorch and in Jittor: is Jittor's a right port?"""

from parity import Pair, Side, normal


def baseline():
    from net import Net

    return Net()


def candidate():
    from jittor_port import Net

    return Net()


pair = Pair(Side("torch", baseline), Side("jittor", candidate), {"x": normal(2, 3, 20, 20)})
