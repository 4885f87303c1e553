"""`transfg data check` and `transfg data stats`."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from transfg.options import Overrides, check_file, check_folder, write_json

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check a data set before training, and print the numbers that a recipe needs.",
)

Subject = Annotated[
    Path,
    typer.Argument(help="a YAML configuration, or the folder of a data set", show_default=False),
]


@app.command()
def check(
    source: Subject,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder for check.html, check.md, check.json and contact sheets"),
    ] = None,
    near: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            help="also find near duplicates: perceptual hashes of 64 bits that differ in at most "
            "BITS, 0 to 10 (8 finds other encodings and sizes of one image)",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="warnings are problems")] = False,
    few: Annotated[
        int, typer.Option(min=0, help="warn of classes with fewer training images")
    ] = 10,
    images: Annotated[
        int, typer.Option(min=0, max=12, help="images of each class on the contact sheet")
    ] = 4,
) -> None:
    """Read every image of a data set and report what is wrong with it.

    Exit codes: 0 no problem; 1 problems; 2 no run could read the data set; 130 after Ctrl-C.
    """
    from transfg_core.inspection.check import check_data

    silence_pillow()
    if out is not None:
        check_folder("--out", out)
    text, bad = check_data(source, overrides or [], out, near, strict, few, images)
    print(printed(text))
    if out is not None:
        print(out / "check.html")
    if bad:
        raise typer.Exit(1)


def silence_pillow() -> None:
    """Hide Pillow's warnings of single files: the commands say themselves what is wrong."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def printed(text: str) -> str:
    """The text without halves of surrogate pairs, which no terminal takes."""
    return text.encode("utf-8", "backslashreplace").decode()


@app.command()
def stats(
    source: Subject,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="also write all numbers, with class weights, as JSON")
    ] = None,
) -> None:
    """Print what a recipe needs: sizes, channel means and deviations, lengths, class weights.

    The last lines are keys for a configuration.
    """
    from transfg_core.inspection.stats import data_stats

    silence_pillow()
    check_file("--out", out, suffixes=(".json",))
    text, record = data_stats(source, overrides or [])
    write_json(out, record)
    print(printed(text))
