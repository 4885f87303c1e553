"""Record the PyTorch model: float32, the float64 reference, and three variants.

    python examples/parity_convnet/record_torch.py FOLDER

Writes torch.npz, torch-float64.npz and torch-ulp1.npz to torch-ulp3.npz.
"""

import argparse
from pathlib import Path

import torch
from experiment import SETTINGS, ZEROS, draw_inputs, draw_weights
from model_torch import compute

from parity import record_taps, ulp_variant


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
