"""Time of operators on feature maps, both passes: PyTorch, Jittor's own, this project's.

    python tools/feature_map_speed.py torch
    python tools/feature_map_speed.py jittor      # Jittor's own operators, and those of transfg_jt

prints milliseconds, the best of ROUNDS, for the maps of ResNet-50 on eight images of 224 pixels.
Each framework needs a process of its own. The number of threads is that of OMP_NUM_THREADS.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROUNDS = 7
BATCH = 8
# name -> shape of the input without the batch; for convolutions features, kernel, stride, padding
CONVOLUTIONS = {
    "convolution 7x7 by 2": ((3, 224, 224), (64, 7, 2, 3)),
    "convolution 3x3": ((64, 56, 56), (64, 3, 1, 1)),
    "convolution 3x3 by 2": ((128, 56, 56), (128, 3, 2, 1)),
    "convolution 1x1": ((64, 56, 56), (256, 1, 1, 0)),
    "convolution 1x1 by 2": ((256, 56, 56), (512, 1, 2, 0)),
}
NORM, POOL = (256, 56, 56), (64, 112, 112)
Row = tuple[str, Callable[[], Any]]


def arrays(shape: tuple[int, ...], weight: tuple[int, ...]) -> tuple[Any, Any]:
    """Random float32 arrays."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, *shape), np.float32), rng.standard_normal(weight, np.float32)


def torch_rows() -> list[Row]:
    """PyTorch's operators."""
    import torch
    from torch.nn import functional as F

    def row(function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        tensors = [torch.from_numpy(value).requires_grad_() for value in inputs]

        def run() -> Any:
            return torch.autograd.grad(function(*tensors).sum(), tensors)

        return run

    # E731: each row needs its own short call
    rows: list[Row] = []
    for name, (shape, (features, kernel, stride, padding)) in CONVOLUTIONS.items():
        x, w = arrays(shape, (features, shape[0], kernel, kernel))
        conv = lambda x, w, s=stride, p=padding: F.conv2d(x, w, None, s, p)  # noqa: E731
        rows.append((f"{name}, PyTorch", row(conv, x, w)))
    x, w = arrays(NORM, (NORM[0],))
    norm = lambda x, w: F.batch_norm(x, None, None, w, w, True)  # noqa: E731
    rows.append(("batch norm, PyTorch", row(norm, x, w)))
    rows.append(("ReLU, PyTorch", row(F.relu, x)))
    x, _ = arrays(POOL, (1,))
    rows.append(("max pool, PyTorch", row(lambda x: F.max_pool2d(x, 3, 2, 1), x)))
    return rows


def jittor_rows() -> list[Row]:
    """Jittor's operators beside those of transfg_jt."""
    from transfg_jt import runtime

    runtime.prepare()
    import jittor as jt
    from jittor import nn

    from transfg_jt.ops.batch_norm import batch_norm
    from transfg_jt.ops.convolution import conv2d
    from transfg_jt.ops.feature_maps import max_pool2d, relu

    def row(function: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
        variables = [jt.array(value) for value in inputs]
        jt.sync(variables)

        def run() -> Any:
            y = function(*variables)
            jt.sync([y, *jt.grad(y.sum(), variables)], True)

        return run

    # E731: each row needs its own short call
    rows: list[Row] = []
    for name, (shape, (features, kernel, stride, padding)) in CONVOLUTIONS.items():
        x, w = arrays(shape, (features, shape[0], kernel, kernel))
        for whose, conv in (("Jittor's own", nn.conv2d), ("transfg_jt", conv2d)):
            call = lambda x, w, f=conv, s=stride, p=padding: f(x, w, None, s, p)  # noqa: E731
            rows.append((f"{name}, {whose}", row(call, x, w)))
    x, w = arrays(NORM, (NORM[0],))
    own = nn.BatchNorm(NORM[0])
    own.train()
    rows.append(("batch norm, Jittor's own", row(own, x)))
    call = lambda x, w: batch_norm(x, w, w, None, 1e-5)[0]  # noqa: E731
    rows.append(("batch norm, transfg_jt", row(call, x, w)))
    rows.append(("ReLU, Jittor's own", row(nn.relu, x)))
    rows.append(("ReLU, transfg_jt", row(relu, x)))
    x, _ = arrays(POOL, (1,))
    rows.append(("max pool, Jittor's own", row(lambda x: nn.max_pool2d(x, 3, 2, 1), x)))
    rows.append(("max pool, transfg_jt", row(lambda x: max_pool2d(x, 3, 2, 1), x)))
    return rows


def main() -> None:
    for name, run in {"torch": torch_rows, "jittor": jittor_rows}[sys.argv[1]]():
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(f"{name:34s} {1e3 * min(times):8.1f} ms", flush=True)


if __name__ == "__main__":
    main()
