"""Run a make target under several processor settings: instruction sets and numbers of threads.

    python -m tools.processors                      # `make test` under every setting
    python -m tools.processors avx2 default --target suite

Rounding depends on the order of sums, and this order on the instruction set and on the threads. A
verdict that changes with them judges the machine, not the code. Each setting limits what PyTorch
(ATEN), oneDNN, MKL and OpenBLAS (NumPy) use of the processor. Jittor's own operators are compiled
for the processor that it finds.

Exit code 0: the target passed under each setting; 1: it did not.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

TWO_THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
DEFAULT = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
}
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx512",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    "OPENBLAS_CORETYPE": "SkylakeX",
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SETTINGS: dict[str, dict[str, str]] = {
    "native": TWO_THREADS,
    "default": DEFAULT | TWO_THREADS,
    "avx2": AVX2 | TWO_THREADS,
    "avx512": AVX512 | TWO_THREADS,
    "one-thread": ONE_THREAD,
    "zen-one-thread": AVX2 | ONE_THREAD | {"OPENBLAS_CORETYPE": "Zen"},
}


def run(name: str, target: str) -> tuple[int, float]:
    """Exit code and seconds of `make TARGET` under one setting."""
    started = time.monotonic()
    variables = SETTINGS[name]
    words = " ".join(f"{key}={value}" for key, value in variables.items())
    print(f"== {name}: {words} make {target}", flush=True)
    child = subprocess.run(["make", target], env=os.environ | variables, check=False)
    return child.returncode, time.monotonic() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the target under each setting, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tools.processors", description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--target", default="test", help="make target (default: test)")
    options = parser.parse_args(arguments)
    names = options.settings or list(SETTINGS)
    if unknown := [name for name in names if name not in SETTINGS]:
        parser.error(f"{unknown[0]}: expected one of {', '.join(SETTINGS)}")
    results = {name: run(name, options.target) for name in names}
    for name, (code, seconds) in results.items():
        outcome = "passed" if code == 0 else f"failed with exit code {code}"
        print(f"{name}: make {options.target} {outcome} after {seconds:.0f} s")
    return int(any(code for code, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main())
