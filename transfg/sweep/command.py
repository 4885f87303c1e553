"""`transfg sweep`."""

from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from transfg_core.errors import RunFailed, UserError

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells, their states and costs; run none.")
    ] = False,
) -> None:
    """Run every combination of a grid of settings that is not finished yet.

    Exit codes: 0 all are finished; 1 some failed (a new start tries them again); 2 the input is
    refused; 128 + n stopped by signal n, with the newest state of each run saved.
    """
    from transfg.sweep.driver import Driver
    from transfg.sweep.engines import LocalEngine
    from transfg.sweep.file import read_sweep_file
    from transfg.sweep.grid import build_sweep
    from transfg.sweep.state import read_state
    from transfg.sweep.table import Table, failure_text, plan_text
    from transfg_core.machine import usable_cpus
    from transfg_core.run.lock import lock_folder

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
        if threads is None and jobs > 1:
            threads = max(1, usable_cpus() // jobs)
        todo = deque(cell for cell, state in states if state.state != "finished")
        with Table({cell.name: state.state for cell, state in states}) as table:
            table.say(f"{plan.folder}: {table.summary()}")
            driver = Driver(LocalEngine(jobs, threads), table, todo)
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


def refuse(problems: list[str]) -> None:
    """Refuse folders that hold something else than the sweep's runs.

    Raises:
        UserError: there are such folders.
    """
    if problems:
        raise UserError(
            "\n  ".join(
                [
                    "some folders hold other runs; give the sweep another name or run.dir, or move "
                    "them away:",
                    *problems,
                ]
            )
        )
