"""`transfg demo`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transfg.options import one_of

if TYPE_CHECKING:
    from transfg.demo.address import Address
    from transfg.demo.pool import Pool
    from transfg.demo.process import Settings

CHOICES = ("torch", "jittor", "both")


def demo(
    runs: Annotated[
        list[Path],
        typer.Argument(help="folders of runs, checkpoints, or exported folders", metavar="RUN..."),
    ],
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            "-b",
            help="torch, jittor or both",
            callback=lambda name: one_of("--backend", name, CHOICES),
        ),
    ] = "torch",
    host: Annotated[
        str, typer.Option(help="address to listen at; 0.0.0.0 opens the page to the network")
    ] = "127.0.0.1",
    public_name: Annotated[
        list[str] | None,
        typer.Option(help="name by which others reach the page, such as a proxy's; repeatable"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 7860,
    examples: Annotated[
        Path | None,
        typer.Option(help="folder of pictures to pick; else toy birds, if a run was trained on it"),
    ] = None,
    megabytes: Annotated[int, typer.Option(min=1, max=200, help="limit of a picture's file")] = 20,
    megapixels: Annotated[int, typer.Option(min=1, max=500, help="limit of its pixels")] = 50,
    time_limit: Annotated[
        float,
        typer.Option(min=1, max=3600, help="seconds for one answer of one model"),
    ] = 60,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each framework; else all")
    ] = None,
) -> None:
    """Serve a web page where models classify and explain pictures.

    Two runs are compared on the same picture. With `--backend both`, PyTorch and Jittor answer one
    after the other, and the page says whether they agree. GET /health reports the state as JSON.
    Nothing is sent to other machines, and pictures of users stay in memory.

    Ctrl-C and SIGTERM stop the server after the present request, with exit code 0; a second one
    stops it at once, with exit code 130 or 143, as does one while the models load.
    """
    from importlib.util import find_spec

    from transfg.demo.address import Address
    from transfg.demo.pool import Pool
    from transfg.demo.process import Settings
    from transfg.demo.server import ended_by_signal
    from transfg_core.errors import UserError
    from transfg_core.machine import install_command

    if find_spec("gradio") is None:
        raise UserError(
            f"transfg demo: expected the package gradio, found none; run {install_command('demo')}"
        )
    backends = ("torch", "jittor") if backend == "both" else (backend,)
    settings = Settings(tuple(runs), megapixels, time_limit, threads)
    address = Address(host, port, tuple(public_name or ()))
    with ended_by_signal(), Pool(backends, settings) as pool:
        open_page(pool, settings, address, examples, megabytes)


def open_page(
    pool: "Pool", settings: "Settings", address: "Address", examples: Path | None, megabytes: int
) -> None:
    """Load the models, then serve until a signal."""
    from transfg.demo.application import prepare
    from transfg.demo.examples import read_examples, toy_examples
    from transfg.demo.server import serve
    from transfg.demo.service import Service, distinct_names
    from transfg.demo.temporary import own_folder

    shown = read_examples(examples) if examples else None
    with own_folder() as folder, address.take() as taken:
        prepare(folder)
        print(f"loading {' and '.join(pool.backends)} models", file=sys.stderr)
        pool.start()
        if shown is None:
            shown = toy_examples(pool.models)
        names = distinct_names(settings.runs)
        service = Service(pool, names, [content for content, _ in shown], megabytes)
        bound = replace(address, port=taken.getsockname()[1])
        serve(service, [kind for _, kind in shown], bound, taken)
