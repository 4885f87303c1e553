"""The child process of the ladder: one backend, all cases -> one trace file each.

    python -m parity.record --backend torch --out FOLDER            # the ladder and golden traces
    python -m parity.record --backend torch --out FOLDER --load-from jittor   # the cross-load rung

A trace is an .npz whose keys are `rung/tap`. Each backend has a process of its own, since the
frameworks disturb each other and one that crashes must not take the other along.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from parity.cases import CASES, UPDATES, Case
from parity.golden import GOLDENS, Golden
from parity.golden import UPDATES as GOLDEN_UPDATES
from transfg_core.backend import Arrays, Backend, Batch, load_backend
from transfg_core.errors import UserError
from transfg_core.schedule import lr_at
from transfg_core.train import split_batch

LOSSES = ("loss", "cross_entropy", "contrastive")


def trace_path(folder: Path, kind: str, name: str, backend: str) -> Path:
    """Where the trace of one case lies."""
    return folder / f"{kind}-{name}-{backend}.npz"


def tagged(rung: str, arrays: Arrays) -> Arrays:
    """The same arrays under `rung/name`."""
    return {f"{rung}/{name}": value for name, value in arrays.items()}


def record_pass(backend: Backend, batch: Batch) -> Arrays:
    """One forward and backward pass, sorted into the rungs forward, losses and gradients."""
    rungs: Arrays = {}
    for name, value in backend.trace(batch).items():
        if name.startswith("grad"):
            rungs[f"gradients/{name}"] = value
        else:
            rungs[f"{'losses' if name in LOSSES else 'forward'}/{name}"] = value
    return rungs


def run_updates(backend: Backend, case: Case, first: int, last: int) -> Arrays:
    """Updates first..last; what each reported, as arrays over updates."""
    config, batches = case.config(), case.batches()
    reports = []
    for update in range(first, last + 1):
        lr = lr_at(update, config.optim, config.train.steps)
        micro = split_batch(batches[update - 1], config.train.accumulation)
        reports.append(backend.fetch(backend.train_step(micro, lr)))
    return {name: np.stack([report[name] for report in reports]) for name in reports[0]}


def record_case(case: Case, backend_name: str) -> Arrays:
    """All rungs of one case but the cross-load."""
    backend = load_backend(backend_name, case.config())
    backend.load_params(case.params())
    trace = tagged("params", backend.state())
    trace |= record_pass(backend, case.batches()[0])
    trace |= tagged("one update", run_updates(backend, case, 1, 1) | backend.state())
    reports = run_updates(backend, case, 2, UPDATES)
    trace |= tagged("twenty updates", reports | backend.state())
    images = case.batches()[0].images
    trace |= tagged("evaluation", backend.fetch(backend.eval_step(images)))
    trace |= tagged(
        "cross-load", run_updates(backend, case, UPDATES + 1, UPDATES + 1) | backend.state()
    )
    return trace


def record_cross_load(case: Case, backend_name: str, folder: Path, owner: str) -> Arrays:
    """Go on for one update from the other backend's state after twenty."""
    with np.load(trace_path(folder, "case", case.name, owner), allow_pickle=False) as stored:
        prefix = "twenty updates/"
        keys = [key for key in stored.files if key.startswith(prefix) and "/" in key[len(prefix) :]]
        state = {key[len(prefix) :]: stored[key] for key in keys}
    backend = load_backend(backend_name, case.config())
    backend.load_state(state)
    reports = run_updates(backend, case, UPDATES + 1, UPDATES + 1)
    return tagged("cross-load", reports | backend.state())


def record_golden(golden: Golden, backend_name: str, folder: Path) -> Arrays:
    """The published trace's taps: one pass, then six updates on the same batch."""
    config, batch = golden.config(), golden.batch()
    backend = load_backend(backend_name, config)
    backend.load_params(load_file(folder / f"golden-{golden.name}.safetensors"))
    trace = record_pass(backend, batch)
    rates = [lr_at(k, config.optim, GOLDEN_UPDATES) for k in range(1, GOLDEN_UPDATES + 1)]
    losses = [float(backend.fetch(backend.train_step([batch], lr))["loss"]) for lr in rates]
    trace |= {"updates/train_lrs": np.array(rates), "updates/train_losses": np.array(losses)}
    state = backend.state()
    after = {name: state[f"param/{name}"] for name in backend.param_shapes()}
    return trace | tagged("updates/after", after)


def main() -> int:
    """Write one trace per case, and `environment-<backend>.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backend", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--load-from", help="record the cross-load from this backend's traces")
    options = parser.parse_args()
    name, folder = options.backend, options.out
    try:
        for case in CASES:
            print(f"{name}: {case.name}", file=sys.stderr)
            if options.load_from:
                trace = record_cross_load(case, name, folder, options.load_from)
                np.savez(trace_path(folder, "cross", case.name, name), **trace)
            else:
                np.savez(trace_path(folder, "case", case.name, name), **record_case(case, name))
        if options.load_from:
            return 0
        for golden in GOLDENS:
            print(f"{name}: golden {golden.name}", file=sys.stderr)
            trace = record_golden(golden, name, folder)
            np.savez(trace_path(folder, "golden", golden.name, name), **trace)
        info = load_backend(name, CASES[0].config()).device_info()
        (folder / f"environment-{name}.json").write_text(json.dumps(info), encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
