"""The command line: `transfg COMMAND --help` tells each command's usage.

Exit codes: 0 success; 1 the run or the check failed; 2 usage, configuration or input; 128 + n
stopped by signal n (130 after Ctrl-C), with the newest state saved.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.cli import bench
from parity.cli import app as parity_app
from transfg_core import __version__
from transfg_core.backend import BACKENDS
from transfg_core.config import ToyConfig, load_config
from transfg_core.errors import UserError
from transfg_core.progress import StandardError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="TransFG fine-grained recognition, natively in PyTorch and in Jittor.",
)
app.add_typer(parity_app, name="parity")
app.command()(bench)


def _known_backend(name: str) -> str:
    if name not in BACKENDS:
        raise UserError(f"--backend {name}: expected one of {', '.join(BACKENDS)}")
    return name


BackendName = Annotated[
    str, typer.Option("--backend", "-b", help="torch or jittor", callback=_known_backend)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, such as optim.lr=0.01", metavar="[KEY=VALUE]..."),
]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """TransFG fine-grained recognition, natively in PyTorch and in Jittor."""
    if show:
        print(f"transfg {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="a YAML file, such as configs/quickstart.yaml")],
    overrides: Overrides = None,
    backend: BackendName = "torch",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this run, or start it if there is none.")
    ] = False,
    resume_from: Annotated[
        Path | None,
        typer.Option(
            help="Start a new run at this checkpoint, of either backend; with --resume, go on "
            "with the new run once it has checkpoints of its own."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run that is there and start anew.")
    ] = False,
) -> None:
    """Train a model; config.yaml, metrics and checkpoints go into run.dir/run.name."""
    from transfg_core.experiment import start_training

    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    settings = load_config(config, overrides or [])
    raise typer.Exit(start_training(settings, backend, resume, resume_from, overwrite))


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="a .safetensors checkpoint of a run")],
    overrides: Overrides = None,
    backend: BackendName = "torch",
    predictions: Annotated[
        Path | None, typer.Option(help="Write each image's prediction to this CSV file.")
    ] = None,
) -> None:
    """Evaluate a checkpoint, of either backend, on the test split; prints JSON."""
    from transfg_core.checkpoint import replace_file
    from transfg_core.experiment import evaluate_checkpoint
    from transfg_core.records import clean, csv_text, prediction_rows

    if predictions and not predictions.parent.is_dir():
        raise UserError(f"--predictions {predictions}: no such folder; make it first")
    result, dataset = evaluate_checkpoint(checkpoint, backend, overrides or [])
    if predictions:
        names = [dataset.test.ids[row] for row in result.index]
        rows = prediction_rows(names, result.labels, result.logits)
        replace_file(predictions, csv_text(rows).encode())
    record = {"checkpoint": str(checkpoint), "backend": backend} | result.record()
    print(json.dumps(clean(record)), flush=True)


@app.command()
def parts(
    checkpoint: Annotated[Path, typer.Argument(help="a .safetensors checkpoint of a run")],
    out: Annotated[Path, typer.Option(help="the PNG to write")],
    overrides: Overrides = None,
    backend: BackendName = "torch",
    images: Annotated[int, typer.Option(min=1, help="how many test images")] = 8,
    heat: Annotated[
        Literal["scores", "rollout"],
        typer.Option(help="what dims the second view; rollout is of attention"),
    ] = "scores",
) -> None:
    """Draw test images with the patches that a checkpoint's model selects."""
    from transfg_core.pictures import draw_parts

    draw_parts(checkpoint, backend, overrides or [], images, out, heat)
    print(out)


@app.command()
def toy(
    root: Annotated[Path, typer.Argument(help="folder to write, such as data/toy")],
    train_per_class: int = ToyConfig().train_per_class,
    test_per_class: int = ToyConfig().test_per_class,
    size: int = ToyConfig().size,
    seed: int = ToyConfig().seed,
) -> None:
    """Render the toy birds as JPEG files in CUB-200-2011's layout; nothing if they are there."""
    from transfg_core.config import build_config
    from transfg_core.data.toy import ensure_toy

    settings: dict[str, Any] = {
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "size": size,
        "seed": seed,
    }
    ensure_toy(root, build_config({"data": {"toy": settings}}, "toy").data.toy)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="*_checkpoint.bin of the authors' program, or a run's checkpoint")
    ],
    target: Annotated[
        Path, typer.Argument(help="the .safetensors file to write, or .npz of a run's checkpoint")
    ],
) -> None:
    """Convert a checkpoint of the authors' program into weights for model.pretrained.

    A plain Vision Transformer that was trained here becomes an .npz under Google's names, which
    other programs read too.
    """
    from transfg_core.backend import load_published_reader
    from transfg_core.pretrained import export_vit_npz

    if target.suffix == ".npz":
        print(export_vit_npz(source, target))
        return
    print(load_published_reader().convert(source, target))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    out: Annotated[Path, typer.Option(help="folder for report.md and report.html")],
    parity: Annotated[
        Path | None, typer.Option(help="parity.json of a parity run, to include")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="a PNG to include")] = None,
) -> None:
    """One page about runs: numbers, curves on one figure, agreement, parity, commands."""
    from transfg_core.report import write_report

    write_report(runs, out, parity, pictures)
    print(out / "report.html")


@app.command()
def doctor() -> None:
    """Which backends work here, and the exact command for whatever is missing."""
    from transfg_core.doctor import examine

    raise typer.Exit(examine())


def main() -> None:
    """Entry point: what users can mend becomes a message and an exit code, our bugs a traceback."""
    # in `transfg parity` 1 says that implementations differ, so nothing else may
    comparing = sys.argv[1:2] == ["parity"]
    failed = 2 if comparing else 1
    try:
        app()
    except UserError as error:
        complain(str(error))
        sys.exit(2 if comparing else error.exit_code)
    except OSError as error:  # whatever its place, the system has said what it refused
        complain(f"the operating system refused: {error}")
        sys.exit(failed)
    except MemoryError as error:
        complain(f"out of memory ({error}); try a smaller model, train.batch_size or data.crop")
        sys.exit(failed)


def complain(message: str) -> None:
    """A message in red, where there is colour, on standard error."""
    StandardError().print(f"error: {message}", style="red", soft_wrap=True)


if __name__ == "__main__":
    main()
