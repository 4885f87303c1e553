"""Record the PyTorch model: float32, the float64 reference, and three variants.

    python examples/parity_convnet/record_torch.py FOLDER

Writes torch.npz, torch-float64.npz and torch-ulp1.npz to torch-ulp3.npz.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from experiment import SETTINGS, ZEROS, C, R, draw_inputs, draw_weights
from model_torch import ConvNet, loss_of
from torch import Tensor

from parity import record_taps, ulp_variant


def compute(weights: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
    """One pass forward and backward in training mode: every tap as an array."""
    inputs = draw_inputs()
    model = ConvNet(R, SETTINGS["channels"], C).to(dtype).train()
    state = {name: torch.from_numpy(value).to(dtype) for name, value in weights.items()}
    model.load_state_dict(state, strict=False)  # but for num_batches_tracked, a counter
    taps: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        taps[f"forward/{name}"] = value
        return value

    images = torch.from_numpy(inputs["images"]).to(dtype)
    loss = loss_of(model(images, tap), torch.from_numpy(inputs["labels"]))
    loss.backward()
    taps["losses/loss"] = loss
    for name, param in model.named_parameters():
        taps[f"gradients/{name}"] = param.grad
    for name, value in model.named_buffers():
        if value.is_floating_point():
            taps[f"statistics/{name}"] = value
    return {name: value.detach().numpy() for name, value in taps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    weights = draw_weights()
    about = {
        "weights": weights,
        "inputs": draw_inputs(),
        "settings": SETTINGS,
        "framework": "torch",
        "version": torch.__version__,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "case": "convnet",
        "zeros": ZEROS,
    }
    taps = compute(weights, torch.float32)
    record_taps(folder / "torch.npz", taps, precision="float32", **about)
    taps = compute(weights, torch.float64)
    record_taps(folder / "torch-float64.npz", taps, precision="float64", **about)
    for seed in (1, 2, 3):
        taps = compute(ulp_variant(weights, seed), torch.float32)
        path, variant = folder / f"torch-ulp{seed}.npz", f"ulp:{seed}"
        record_taps(path, taps, precision="float32", variant=variant, **about)


if __name__ == "__main__":
    main()
