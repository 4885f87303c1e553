"""Record the Jittor model in float32, on demand with a fault in it.

    python examples/parity_convnet/record_jittor.py FOLDER [--bug NAME]

Writes jittor.npz, or jittor-NAME.npz. Faults: `eps`, the second norm has another epsilon;
`transpose`, the second convolution's kernel lies on its side; `stock`, Jittor's own batch norm.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from experiment import SETTINGS, ZEROS, C, R, draw_inputs, draw_weights

from parity import record_taps
from transfg_jt import runtime

runtime.prepare()  # see docs/jittor.md; imports jittor

import jittor as jt  # noqa: E402
from jittor import Var, nn  # noqa: E402
from model_jittor import ConvNet, loss_of  # noqa: E402

BUGS = ("none", "eps", "transpose", "stock")


def compute(weights: dict[str, np.ndarray], bug: str) -> dict[str, np.ndarray]:
    """One pass forward and backward in training mode: every tap as an array."""
    inputs = draw_inputs()
    model = ConvNet(R, SETTINGS["channels"], C)
    if bug == "eps":
        model.norm2.eps = 1e-3
    if bug == "transpose":
        weights = weights | {"conv2.weight": weights["conv2.weight"].transpose(0, 1, 3, 2)}
    if bug == "stock":
        model.norm1, model.norm2 = (nn.BatchNorm(n) for n in SETTINGS["channels"])
    model.train()
    for name, param in model.named_parameters():
        param.assign(jt.array(np.ascontiguousarray(weights[name])))
    taps: dict[str, Var] = {}

    def tap(name: str, value: Var) -> Var:
        taps[f"forward/{name}"] = value
        return value

    loss = loss_of(model(jt.array(inputs["images"]), tap), jt.array(inputs["labels"]))
    trained = [(n, p) for n, p in model.named_parameters() if "running" not in n]
    grads = jt.grad(loss, [param for _, param in trained])
    taps["losses/loss"] = loss
    for (name, _), grad in zip(trained, grads, strict=True):
        taps[f"gradients/{name}"] = grad
    for name, param in model.named_parameters():
        if "running" in name:
            taps[f"statistics/{name}"] = param
    arrays = {name: value.numpy() for name, value in taps.items()}
    arrays["losses/loss"] = arrays["losses/loss"].reshape(())  # Jittor's scalars have shape (1,)
    if bug == "transpose":  # back, as the gradient of the kernel that was given
        arrays["gradients/conv2.weight"] = arrays["gradients/conv2.weight"].transpose(0, 1, 3, 2)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bug", choices=BUGS, default="none")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    weights = draw_weights()
    record_taps(
        options.folder / ("jittor.npz" if options.bug == "none" else f"jittor-{options.bug}.npz"),
        compute(weights, options.bug),
        weights=weights,
        inputs=draw_inputs(),
        settings=SETTINGS,
        framework="jittor",
        version=jt.__version__,
        precision="float32",
        device="cpu",
        threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        case="convnet",
        zeros=ZEROS,
    )


if __name__ == "__main__":
    main()
