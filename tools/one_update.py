"""Time and peak memory of one update at full size.

    python tools/one_update.py torch configs/cub.yaml model.pretrained=null model.classes=200
    python tools/one_update.py jittor configs/cub.yaml model.pretrained=null model.classes=200

Four updates on one random image; the first may compile operators. Memory is the process's peak
resident set on the CPU. The processor is shared with whatever else runs: compare two backends by
turns, more than once.
"""

import sys
import time

import numpy as np

from transfg_core.backend import Batch, load_backend
from transfg_core.config import load_config
from transfg_core.params import build_params


def main() -> None:
    """Print one line for the backend named on the command line."""
    name, path, *overrides = sys.argv[1:]
    config = load_config(path, overrides)
    backend = load_backend(name, config)
    backend.load_params(build_params(config)[0])
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, *config.data.crop)).astype(np.float32)
    batch, seconds = Batch(image, np.array([0])), []
    for _ in range(4):
        began = time.perf_counter()
        backend.fetch(backend.train_step([batch], config.optim.lr))
        seconds.append(time.perf_counter() - began)
    peak = backend.device_info()["peak_memory_bytes"] / 2**20
    first, *rest = (f"{one:.2f}" for one in seconds)
    print(f"{name}: first {first} s, then {', '.join(rest)} s; peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
