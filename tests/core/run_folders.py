"""Run folders with known numbers, which the tests of reports write."""

import numpy as np

from transfg_core.config.loading import load_config
from transfg_core.run.folder import RunFolder

DEVICE = {"device": "a <processor>", "threads": 2}
COMMAND = ("transfg", "train", "run.name=a b")
LABELS = np.array([0, 1, 2, 3, 3, 2, 2, 0])


def settings(folder, name, *overrides):
    """A short run's configuration."""
    short = ["train.steps=40", "optim.warmup=4"]
    return load_config(None, [f"run.dir={folder}", f"run.name={name}", *short, *overrides])


def make_run(folder, name, backend, shift=0.0, overrides=(), finish=True, weights=None):
    """A run of 40 updates with losses, speeds and two evaluations."""
    with RunFolder.create(settings(folder, name, *overrides)) as run:
        run.record_environment({"device": "a <processor>"}, COMMAND, {}, weights)
        run.log({"kind": "event", "event": "start", "backend": backend, "update": 0, "seconds": 0})
        for k in range(2, 41, 2):
            loss = float("nan") if k == 6 else 4 / k + shift * (k > 10)
            speed = 1.0 if k == 2 else 123.4
            run.log({"kind": "train", "update": k, "loss": loss, "images_per_second": speed})
            if k % 20 == 0:
                numbers = {"loss": 0.4321, "top5": 0.9876}
                parts = {"part_hit": 0.6789, "part_hit_chance": 0.1234}
                top1 = 0.95 if k == 20 else 0.8125 + shift
                run.log({"kind": "eval", "update": k, "top1": top1} | numbers | parts)
        if finish:
            end = {"backend": backend, "update": 40, "peak_memory_bytes": 300 << 20}
            run.log({"kind": "event", "event": "finish", "seconds": 3725.4, **end})
            logits = np.eye(4)[[0, 1, 2, 3, 0, 1, 2 + (shift > 0), 3]]
            run.write_predictions(list("abcdefgh"), LABELS, logits)
    return run.path


def write_run(
    folder,
    name,
    *overrides,
    backend="torch",
    evals=(),
    top1=0.5,
    seconds=3600.0,
    speed=100.0,
    memory=100,
    device=DEVICE,
    caution="",
    labels=LABELS,
    guesses=LABELS,
    images="abcdefgh",
    losses=None,
):
    """A finished run; `evals` are (update, numbers) before the last evaluation, with `top1`."""
    with RunFolder.create(settings(folder, name, *overrides)) as run:
        run.record_environment(device, COMMAND, {"caution": caution})
        start = {"kind": "event", "backend": backend}
        run.log(start | {"event": "start", "update": 0, "seconds": 0})
        numbers = {"loss": 1.0, "images_per_second": speed} | (losses or {})
        run.log({"kind": "train", "update": 40} | numbers)
        for update, numbers in [*evals, (40, {"top1": top1})]:
            run.log({"kind": "eval", "update": update} | numbers)
        end = {"event": "finish", "update": 40, "peak_memory_bytes": memory << 20}
        run.log(start | end | {"seconds": seconds})
        run.write_predictions(list(images), labels, np.eye(4)[guesses])
    return run.path
