"""Record the Jittor model in float32; `--bug` plants a fault.

    python examples/parity_convnet/record_jittor.py FOLDER [--bug NAME]

Writes jittor.npz, or jittor-NAME.npz with a fault. Faults: `eps`, the second norm has another
epsilon; `transpose`, height and width of the second kernel are swapped; `stock`, Jittor's own batch
norm.
"""

import argparse
import os
from pathlib import Path

from experiment import SETTINGS, ZEROS, draw_inputs, draw_weights

from parity import record_taps
from transfg_jt import runtime

BUGS = ("none", "eps", "transpose", "stock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bug", choices=BUGS, default="none")
    options = parser.parse_args()
    runtime.prepare()  # before anything imports jittor: docs/jittor.md
    import jittor as jt
    from model_jittor import compute

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
