"""`transfg parity` and its commands.

Exit codes: 0 equivalent; 1 different; 2 undecided, or the input is refused (with a message); 3 less
precise.
"""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import check_file, check_folder, one_of, write_json
from transfg_core.backend import BACKENDS, FLOAT_TYPES
from transfg_core.errors import UserError

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Check whether two implementations agree. Without a command, run the whole suite.",
)

Seed = Annotated[
    int | None, typer.Option(min=0, help="Seed of other weights and images than the case's own.")
]
Draw = Annotated[str, typer.Option(help="Weights for --seed: noise, truncated or outliers.")]


@app.callback()
def suite(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="folder for traces and reports")] = Path("runs/parity"),
    case: Annotated[
        list[str] | None, typer.Option(help="Only these cases of the suite; may be repeated.")
    ] = None,
    large: Annotated[
        bool,
        typer.Option(
            "--large", help="Only B/16 at 448 pixels with overlapping patches, not the suite."
        ),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help="What to compare: float32 and float64; tf32; bfloat16, only isolated operations."
        ),
    ] = "float32",
    float64: Annotated[
        bool,
        typer.Option(
            "--float64/--no-float64",
            help="Record Jittor in float64 as well; always on the CPU, whatever the device.",
        ),
    ] = True,
    seed: Seed = None,
    draw: Draw = "noise",
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Also keep the traces (0.6 GB) of a run that is equivalent."),
    ] = False,
) -> None:
    """Check whether two implementations agree. Without a command, run the whole suite.

    Exit codes: 0 equivalent; 1 different; 2 undecided, or the input is refused; 3 less precise.
    """
    if context.invoked_subcommand:
        return
    from parity.cases.case import CASES, LARGE
    from parity.cases.golden import GOLDENS
    from parity.suite.plan import Suite
    from parity.suite.run import run_suite

    check_folder("--out", out)
    if large and case:
        raise UserError("--large and --case exclude each other; give one")
    one_of("--precision", precision, ("float32", "tf32", "bfloat16"))
    known = {suite_case.name: suite_case for suite_case in CASES}
    chosen = [known[one_of("--case", name, known)] for name in case or known]
    whole = precision != "bfloat16"  # a whole pass in bfloat16 has noise of several per cent
    goldens = () if case or large or seed is not None or not whole else GOLDENS
    plan = Suite(
        out,
        [LARGE] if large else chosen,
        goldens,
        precision,
        float64=float64 and precision == "float32" and not large,
        whole=whole,
        seed=seed,
        draw=draw,
        checks=bool(goldens) and precision == "float32",
        onnx=bool(goldens) and precision == "float32",
    )
    raise typer.Exit(run_suite(plan, keep))


@app.command()
def record(
    out: Annotated[Path, typer.Argument(help="the trace file (.npz) to write")],
    case: Annotated[str, typer.Option(help="a case of the suite, such as overlap")],
    backend: Annotated[str, typer.Option("--backend", "-b", help="torch or jittor")] = "torch",
    precision: Annotated[str, typer.Option(help=", ".join(FLOAT_TYPES))] = "float32",
    variant: Annotated[
        str | None,
        typer.Option(help="ulp:SEED or symmetry:SEED: the same function, computed differently"),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="isolate every operation: feed it with the inputs in this trace"),
    ] = None,
    force: Annotated[
        Path | None, typer.Option(help="select the parts that this trace selected")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="start from these weights (.safetensors)")
    ] = None,
    seed: Seed = None,
    draw: Draw = "noise",
    sketch_above: Annotated[
        int | None, typer.Option(min=1, help="store arrays with more elements as sketches")
    ] = None,
) -> None:
    """Record one backend on one case into a trace file. Any machine can compare it."""
    from parity.suite.jobs import Job
    from parity.suite.record import record as record_job

    job = Job(
        backend=one_of("--backend", backend, BACKENDS),
        case=case,
        out=str(out),
        kind="isolated" if source else "case",
        precision=one_of("--precision", precision, FLOAT_TYPES),
        variant=variant,
        source=str(source) if source else None,
        force=str(force) if force else None,
        weights=str(weights) if weights else None,
        seed=seed,
        draw=draw,
        sketch_above=sketch_above,
    )
    check_file("out", out)
    record_job(job)
    print(out)


@app.command()
def compare(
    traces: Annotated[
        list[Path], typer.Argument(help="two traces, then evidence: traces in float64, variants")
    ],
    names: Annotated[
        Path | None,
        typer.Option(help="YAML: tap names of the second trace -> tap names of the first"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the reports")] = None,
) -> None:
    """Show whether and where traces differ; needs no framework."""
    from parity.api import compare_files
    from parity.suite.explaining import explained_as_in_suite
    from parity.suite.siblings import SIBLINGS

    if out:
        check_folder("--out", out)
    raise typer.Exit(compare_files(traces, names, out, SIBLINGS, explained_as_in_suite))


@app.command()
def bisect(
    case: Annotated[str, typer.Option(help="a case of the suite, such as overlap")] = "overlap",
    out: Annotated[Path, typer.Option(help="folder for traces and reports")] = Path("runs/bisect"),
    seed: Seed = None,
    draw: Draw = "noise",
) -> None:
    """Name the operations that differ. Each operation gets the other backend's inputs."""
    from parity.suite.bisection import run_bisection

    check_folder("--out", out)
    raise typer.Exit(run_bisection(out, case, seed, draw))


@app.command()
def accuracy(
    baseline: Annotated[list[Path], typer.Option(help="run folder; one for each seed")],
    candidate: Annotated[list[Path], typer.Option(help="run folder; one for each seed")],
    margin: Annotated[
        float,
        typer.Option(
            min=0.01, max=100, help="largest difference that counts as equal, in percentage points"
        ),
    ] = 1.0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
) -> None:
    """Compare the accuracy of two sets of runs. They are equivalent, different or undecided."""
    from parity.runs.accuracy import compare_accuracy, exit_code, print_accuracy

    check_file("--out", out)
    result = compare_accuracy(baseline, candidate, margin / 100)
    print_accuracy(result)
    write_json(out, result.to_record())
    raise typer.Exit(exit_code(result.verdict))


@app.command()
def curves(
    baseline: Annotated[list[Path], typer.Option(help="run folder; one for each seed")],
    candidate: Annotated[list[Path], typer.Option(help="run folder; one for each seed")],
    repetition: Annotated[
        list[Path] | None,
        typer.Option(
            help="folder of a repeated baseline run, perturbed only by rounding; 4 or more"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
) -> None:
    """Compare training losses of two sets of runs. First exactly, later as distributions."""
    from parity.runs.accuracy import exit_code
    from parity.runs.loss_curves import compare_loss_curves, print_curves

    check_file("--out", out)
    result = compare_loss_curves(baseline, candidate, repetition or ())
    print_curves(result)
    write_json(out, result.to_record())
    raise typer.Exit(exit_code(result.comparison.verdict))
