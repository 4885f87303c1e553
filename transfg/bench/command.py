"""`transfg bench`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from transfg_core.errors import RunFailed, UserError

LEAST_TURN = 4


def bench(
    config: Annotated[Path, typer.Argument(help="a YAML file, such as configs/cub/overlap.yaml")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value for all subjects", metavar="[KEY=VALUE]..."),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="what to compare, first what ratios refer to: BACKEND[:METHOD] [KEY=VALUE]..., "
            "where METHOD is transfg, vit, published (stored maps, whole products) or real-input"
        ),
    ] = None,
    work: Annotated[
        str, typer.Option(help="train, infer, attention, selection or input")
    ] = "train",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="images; may be repeated")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="steps of each subject, by turns")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="steps before them")] = 1,
    turn: Annotated[
        int, typer.Option(min=1, help="steps of a turn; of several, the first is not timed")
    ] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a subject")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
) -> None:
    """Measure time and memory of subjects by turns: medians, ranges, ratios, peaks.

    Exit codes: 0 measured; 1 nothing could be; 2 the input is refused.
    """
    from transfg.bench.results import as_record, print_table
    from transfg.bench.runner import measure
    from transfg.bench.subject import WORK, parse_subject
    from transfg_core.checkpoints.file import replace_file
    from transfg_core.run.metrics_log import clean

    if work not in WORK:
        raise UserError(f"--work {work}: expected one of {', '.join(WORK)}")
    if out and not out.parent.is_dir():
        raise UserError(f"--out {out}: no such folder; make it first")
    subjects = [parse_subject(one) for one in subject or ["torch", "jittor"]]
    if work == "input":
        subjects = subjects[:1]  # no backend takes part
    if len({(one.backend, one.method, one.overrides) for one in subjects}) < len(subjects):
        raise UserError("--subject: given twice; leave one out")
    if turn < LEAST_TURN and (work == "input" or any(one.reads for one in subjects)):
        raise UserError(
            f"--turn {turn}: expected {LEAST_TURN} or more where images are read, since they are "
            "read ahead while others have their turn"
        )
    sizes = batch or [1]
    plans = [[one.config(config, overrides or [], size) for one in subjects] for size in sizes]
    results, references = [], []
    for plan in plans:
        found = measure(subjects, work, plan, rounds, warmup, turn, threads)
        results += found
        references += [found[0]] * len(found)
        if out:  # after every batch size: what is measured is not lost
            record = clean(as_record(results, references))
            replace_file(out, (json.dumps(record, indent=1) + "\n").encode())
    print_table(results, references)
    if all(one.failed for one in results):
        raise RunFailed(f"bench: nothing could be measured: {results[0].failed}")
