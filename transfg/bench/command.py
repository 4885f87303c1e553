"""`transfg bench`."""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import check_file, one_of, write_json
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
            help="what to compare; ratios refer to the first: BACKEND[:METHOD] [KEY=VALUE]..., "
            "METHOD is transfg, vit, published (stores all maps, multiplies whole maps), "
            "real-input (reads the data set), or with torch timm or torchvision (the same model "
            "from that package, --work train or infer); with --work input: loader, loader:uint8 "
            "(not normalised, as training takes it) or torchvision"
        ),
    ] = None,
    work: Annotated[
        str, typer.Option(help="train, infer, attention, selection or input")
    ] = "train",
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="images in a batch; may be repeated")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="timed rounds; each subject has one turn in a round")
    ] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="untimed rounds before the timed ones")] = 1,
    turn: Annotated[
        int, typer.Option(min=1, help="steps in a turn; with two or more, the first is not timed")
    ] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of a subject")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
) -> None:
    """Measure time and memory of subjects in turn: medians, ranges, ratios, peaks.

    Exit codes: 0 measured; 1 no subject could be measured; 2 the input is refused.
    """
    from transfg.bench.results import as_record, print_input_table, print_table
    from transfg.bench.runner import measure
    from transfg.bench.subject import PEERS, READERS, WORK, parse_subject

    one_of("--work", work, WORK)
    check_file("--out", out)
    default = ["loader"] if work == "input" else ["torch", "jittor"]
    subjects = [parse_subject(text) for text in subject or default]
    for entry in subjects:
        if (entry.backend in READERS) != (work == "input"):
            raise UserError(
                f"--subject {entry.label}: --work input reads with loader or torchvision, any "
                "other work is done by a backend; change --subject or --work"
            )
        if entry.method in PEERS and work not in ("train", "infer"):
            raise UserError(
                f"--subject {entry.label}: --work {work} is done by this project's models alone; "
                "a peer can train and infer"
            )
    distinct = {(entry.backend, entry.method, entry.overrides) for entry in subjects}
    if len(distinct) < len(subjects):
        raise UserError("--subject: expected each subject once, found one given twice; remove it")
    if turn < LEAST_TURN and (work == "input" or any(entry.reads for entry in subjects)):
        raise UserError(
            f"--turn {turn}: expected {LEAST_TURN} or more when images are read: a subject reads "
            "ahead during the turns of the others, so short turns would look too fast"
        )
    sizes = batch or [1]
    plans = [[entry.config(config, overrides or [], size) for entry in subjects] for size in sizes]
    results, baselines = [], []
    try:
        for plan in plans:
            measurements = measure(subjects, work, plan, rounds, warmup, turn, threads)
            results += measurements
            baselines += [measurements[0]] * len(measurements)
            # after every batch size, so that a failure loses no measurement
            write_json(out, as_record(results, baselines))
    finally:
        if results:
            (print_input_table if work == "input" else print_table)(results, baselines)
    if all(result.failed for result in results):
        raise RunFailed(f"bench: every subject failed; the first: {results[0].failed}")
