"""`transfg sweep`."""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transfg.options import one_of
from transfg_core.errors import RunFailed, UserError

if TYPE_CHECKING:
    from transfg.sweep.engines import Engine

ENGINES = ("local", "ray", "slurm")
SHOWN = 5  # folders that a message names
BUSY = "is running this sweep; stop it, or wait for its end"


def sweep(
    file: Annotated[
        Path, typer.Argument(help="a YAML file, such as configs/sweeps/cub50/ablation.yaml")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value for all runs", metavar="[KEY=VALUE]..."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="runs at the same time")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads of a run; else all, divided among the jobs"),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local, ray or slurm", callback=lambda name: one_of("--engine", name, ENGINES)
        ),
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="a Ray cluster; else one is started on this machine")
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=0, help="GPUs of a run, which Ray or Slurm assigns to it")
    ] = 0,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of sbatch, such as time=240 (minutes) or partition=gpu"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells, their states and costs; run none.")
    ] = False,
) -> None:
    """Run every combination of a grid of settings that is not finished yet.

    Exit codes: 0 all are finished; 1 some failed (a new start tries them again); 2 the input is
    refused; 128 + n stopped by signal n, with the newest state of each run saved.
    """
    from transfg.sweep.driver import Driver
    from transfg.sweep.file import read_sweep_file
    from transfg.sweep.grid import build_sweep
    from transfg.sweep.state import read_state
    from transfg.sweep.table import Table, failure_text, plan_text
    from transfg_core.run.lock import lock_folder

    check_engine(engine, address, gpus, slurm)
    plan = build_sweep(read_sweep_file(file), overrides or [])
    if dry_run:
        states = [(cell, read_state(cell)) for cell in plan.cells]
        print(plan_text(states))
        refuse([state.problem for _, state in states if state.problem])
        return
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{plan.folder}: cannot make the folder: {error.strerror}") from error
    with lock_folder(plan.folder, BUSY):
        states = [(cell, read_state(cell)) for cell in plan.cells]
        refuse([state.problem for _, state in states if state.problem])
        todo = deque(cell for cell, state in states if state.state != "finished")
        table = Table({cell.name: state.state for cell, state in states})
        if not todo:
            table.say(f"{plan.folder}: {table.summary()}")
            return
        runs = open_engine(engine, plan.folder, jobs, threads, gpus, address, slurm or [])
        with runs, table:
            table.say(f"{plan.folder}: {table.summary()}")
            driver = Driver(runs, table, todo)
            driver.run()
            for cell, reason in driver.failed.values():
                table.say(failure_text(cell, reason))
            table.say(f"{plan.folder}: {table.summary()}")
    if driver.signal is not None:
        raise typer.Exit(128 + driver.signal)
    if driver.failed:
        raise RunFailed(
            f"{len(driver.failed)} of {len(plan.cells)} cells failed: {', '.join(driver.failed)}; "
            "the same command tries them again"
        )


def check_engine(engine: str, address: str | None, gpus: int, slurm: list[str] | None) -> None:
    """Refuse options of another engine.

    Raises:
        UserError: an option does not belong to the engine, or one that it needs is absent.
    """
    if address and engine != "ray":
        raise UserError(f"--address {address}: belongs to --engine ray; leave it out")
    if slurm and engine != "slurm":
        raise UserError(f"--slurm {slurm[0]}: belongs to --engine slurm; leave it out")
    if gpus and engine == "local":
        raise UserError(
            "--gpus: belongs to --engine ray or slurm; local runs use the GPU that "
            "CUDA_VISIBLE_DEVICES shows them"
        )
    if engine == "slurm" and not any(item.startswith("time=") for item in slurm or []):
        raise UserError("--engine slurm: expected the time of a job, --slurm time=MINUTES")


def open_engine(
    engine: str,
    folder: Path,
    jobs: int,
    threads: int | None,
    gpus: int,
    address: str | None,
    slurm: list[str],
) -> "Engine":
    """The engine that the options ask for.

    Raises:
        UserError: a package that it needs is not installed, or its cluster cannot be reached.
    """
    if engine == "ray":
        from transfg.sweep.ray_engine import RayEngine

        return RayEngine(jobs, threads, gpus, address)
    if engine == "slurm":
        from transfg.sweep.slurm_engine import SlurmEngine, sbatch_settings

        settings = sbatch_settings(slurm) | ({"gpus_per_node": gpus} if gpus else {})
        return SlurmEngine(jobs, threads, folder / ".slurm", settings)
    from transfg.sweep.engines import LocalEngine
    from transfg_core.machine import usable_cpus

    if threads is None and jobs > 1:
        threads = max(1, usable_cpus() // jobs)
    return LocalEngine(jobs, threads)


def refuse(problems: list[str]) -> None:
    """Refuse folders that hold something else than the sweep's runs.

    Raises:
        UserError: there are such folders.
    """
    if problems:
        shown = problems[:SHOWN]
        if len(problems) > SHOWN:
            shown.append(f"and {len(problems) - SHOWN} more")
        lines = "\n  ".join(shown)
        raise UserError(
            f"{len(problems)} folders of the sweep hold something else; give the sweep another "
            f"`name` or run.dir, or move them away:\n  {lines}"
        )
