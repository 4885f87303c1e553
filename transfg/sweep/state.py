"""What is there of a cell: its state, how far it is, and what is left to do."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transfg.sweep.grid import Cell
from transfg_core.config.loading import flatten
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
from transfg_core.resume import is_finished
from transfg_core.run.comparison import FREE
from transfg_core.run.lock import is_locked, is_run, refuse_if_used
from transfg_core.run.reading import UNKNOWN, Run, load_run

TAIL = 8192  # bytes at the end of metrics.jsonl in which the newest records lie
# Keys that change no image's time: cells that differ in nothing else have one speed.
SAME_SPEED = FREE | {
    "run.seed", "loss.margin", "loss.label_smoothing", "optim.lr", "optim.momentum",
    "optim.betas", "optim.eps", "optim.weight_decay", "optim.schedule", "optim.warmup",
    "train.steps", "train.epochs", "model.pretrained",
}  # fmt: skip
FROM_DATA = "model.classes"

State = Literal["finished", "partial", "to do", "refused"]


@dataclass(frozen=True)
class CellState:
    """State of a cell's run folder; `problem` says why a cell is refused."""

    state: State
    done: int = 0  # updates
    total: int | None = None  # updates; None: the data set decides, and no run has asked it yet
    batch: int = 0  # images of an update
    problem: str = ""
    speed: float | None = None  # images/s, of a finished cell
    top1: float | None = None  # a fraction, of the newest evaluation

    @property
    def left(self) -> int | None:
        """Images that are still to be trained on."""
        if self.state == "finished":
            return 0
        return None if self.total is None else (self.total - self.done) * self.batch


def read_state(cell: Cell) -> CellState:
    """The state of a cell; a folder that holds anything else makes the cell `refused`."""
    train, folder = cell.config.train, cell.folder
    total = train.steps if train.epochs is None else None
    try:
        if not is_run(folder):
            refuse_if_used(folder, overwrite=False)
            return CellState("to do", total=total, batch=train.batch_size)
        run = load_run(folder)
    except UserError as error:
        return CellState("refused", total=total, batch=train.batch_size, problem=str(error))
    differing = differences(cell, run)
    if differing:
        lines = "\n    ".join([f"{folder}: holds another experiment:", *differing])
        return CellState("refused", total=total, batch=train.batch_size, problem=lines)
    total, update = run.config.train.steps, run.update
    finished = is_finished(folder)
    return CellState(
        "finished" if finished else "partial" if update else "to do",
        update,
        total,
        train.batch_size,
        speed=run.images_per_second if finished else None,
        top1=run.final.get("top1"),
    )


def differences(cell: Cell, run: Run) -> list[str]:
    """One line `key: in the folder -> in the sweep` for each difference of the experiments."""
    old = flatten(run.config.model_dump())
    new = flatten(_resolved(cell.config, run).model_dump())
    if new.get(FROM_DATA) is None:
        new[FROM_DATA] = old.get(FROM_DATA)
    lines = [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in dict.fromkeys([*old, *new])
        if key not in FREE and old.get(key) != new.get(key)
    ]
    if run.backend not in (UNKNOWN, cell.backend):
        lines.append(f"backend: {run.backend} -> {cell.backend}")
    return lines


def _resolved(config: Config, run: Run) -> Config:
    """The configuration with the length in updates that the run's data set gives it."""
    if config.train.epochs is None:
        return config
    data = run.starts[-1].get("data") if run.starts else None
    images = data.get("training_images") if isinstance(data, dict) else None
    steps = (
        math.ceil(config.train.epochs * images / config.train.batch_size)
        if isinstance(images, int)
        else run.config.train.steps  # the run was stopped before it wrote env.json
    )
    train = config.train.model_copy(update={"steps": steps, "epochs": None})
    return config.model_copy(update={"train": train})


def is_busy(cell: Cell) -> bool:
    """Whether a process is writing the cell's run now."""
    return is_locked(cell.folder)


def speed_of(cell: Cell, states: Sequence[tuple[Cell, CellState]]) -> float | None:
    """Mean images/s of finished cells that differ from this one in no key that matters for it."""
    key = _speed_key(cell)
    speeds = [state.speed for other, state in states if state.speed and _speed_key(other) == key]
    return sum(speeds) / len(speeds) if speeds else None


def _speed_key(cell: Cell) -> tuple[Any, ...]:
    flat = flatten(cell.config.model_dump(mode="json"))
    return (cell.backend, *(repr(item) for item in flat.items() if item[0] not in SAME_SPEED))


def newest_record(folder: Path) -> dict[str, Any]:
    """The newest training record of a run that may be running; empty if there is none."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:  # cut at the start of the tail, or not yet complete
            continue
        if isinstance(record, dict) and record.get("kind") == "train":
            return record
    return {}
