"""The command line: all commands, and the handling of their errors.

Exit codes: 0 success; 1 the run or the check failed; 2 wrong usage, configuration or input;
128 + n stopped by signal n (130 after Ctrl-C), with the newest state saved.
"""

import sys
from typing import Annotated

import typer

from transfg import __version__
from transfg.bench.command import bench
from transfg.convert import convert
from transfg.data import app as data_app
from transfg.demo.command import demo
from transfg.doctor import doctor
from transfg.evaluate import evaluate
from transfg.explain import explain
from transfg.export import export
from transfg.knn import knn
from transfg.models import models
from transfg.parity import app as parity_app
from transfg.parts import parts
from transfg.predict import predict
from transfg.recipes import recipes
from transfg.report import report
from transfg.sweep.command import sweep
from transfg.toy import toy
from transfg.train import train
from transfg.weights import weights
from transfg_core.errors import UserError, is_out_of_memory
from transfg_core.run.progress import StandardError, plain

HELP = "TransFG fine-grained recognition, natively in PyTorch and in Jittor."

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=HELP
)
app.add_typer(parity_app, name="parity")
app.add_typer(data_app, name="data")
for command in (
    *(train, sweep, evaluate, predict, explain, export, demo, knn, parts, report),
    *(recipes, toy, models, weights, convert, doctor, bench),
):
    app.command()(command)


@app.callback(invoke_without_command=True, help=HELP)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Print the version and exit, if `--version` is given."""
    if show:
        print(f"transfg {__version__}")
        raise typer.Exit


def run() -> None:
    """Run a command. A `UserError` becomes a message and an exit code; a bug gives a traceback."""
    # in `transfg parity`, exit code 1 means that implementations differ; other errors need another
    comparing = sys.argv[1:2] == ["parity"]
    failed = 2 if comparing else 1
    errors: tuple[type[ValueError], ...] = (UserError,)
    if comparing:
        from parity.errors import ParityError  # imported here: other commands start without it

        errors = (UserError, ParityError)
    try:
        app()
    except errors as error:
        complain(str(error))
        sys.exit(2 if comparing else getattr(error, "exit_code", 2))
    except OSError as error:
        complain(f"the operating system refused: {error}")
        sys.exit(failed)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), "no more is available")
        complain(
            f"out of memory: {reason}; try a smaller train.batch_size, train.eval_batch_size, "
            "data.crop or model, or a larger train.accumulation"
        )
        sys.exit(failed)


def complain(message: str) -> None:
    """Print a message on standard error, in red if the terminal has colours."""
    StandardError().print(plain(f"error: {message}"), style="red", soft_wrap=True)
