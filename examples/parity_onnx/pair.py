"""A network in PyTorch, and its ONNX file, run by ONNX Runtime."""

from parity import Pair, Side, normal

SHAPE = (4, 3, 10, 12)


def baseline():
    from net import Net

    return Net()


def candidate():
    from net import Net, export

    return export(Net(), SHAPE)  # or the path of a file


pair = Pair(
    Side("torch", baseline), Side("onnx", candidate), {"x": normal(*SHAPE)}, weights="built"
)
