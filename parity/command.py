"""The command `parity`: compare two programs by what they recorded.

    parity run pair.py               record both sides of a pair, each in its environment; compare
    parity compare A B ...           compare traces, or the folder of a recorded pair
    parity show TRACE                what a trace holds

Exit codes: 0 equivalent; 1 different; 2 undecided, or the input is refused; 3 less precise.
"""

import argparse
import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError

if TYPE_CHECKING:
    from parity.matching.declared import Declared

RAW = argparse.RawDescriptionHelpFormatter
REFUSED = 2
INTERRUPTED = 130
EXIT_CODES = "exit codes: 0 equivalent; 1 different; 2 undecided, or input refused; 3 less precise"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    A `ParityError` becomes a message. A bug gives a traceback.
    """
    options = parser().parse_args(arguments)
    try:
        code: int = options.do(options)
        sys.stdout.flush()
        return code
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: the operating system refused: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    return REFUSED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser("parity", description=__doc__, formatter_class=RAW)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", do_run, "record both sides of a pair file, and compare them")
    run.add_argument("pair", type=Path, help="the pair file (Python)")
    _add_recording(run)
    run.add_argument("--open", action="store_true", help="show the page in a browser")

    compare = _command(commands, "compare", do_compare, "compare traces; needs no framework")
    compare.add_argument(
        "traces",
        nargs="+",
        type=Path,
        metavar="TRACE",
        help="baseline, candidate, then evidence; or the folder of a recorded pair",
    )
    compare.add_argument(
        "--names", type=Path, help="YAML: names and layouts of the candidate's taps"
    )
    compare.add_argument("--out", type=Path, help="folder for the reports")
    compare.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit's XML here")

    show = _command(commands, "show", do_show, "show what a trace holds")
    show.add_argument("trace", type=Path)
    show.add_argument("--tap", help="print the numbers of this tap")
    show.add_argument("--stage", help="only the taps of this stage")
    return top


def _command(
    commands: Any, name: str, do: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, epilog=EXIT_CODES
    )
    made.set_defaults(do=do)
    return made


def _add_recording(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, help="folder for traces and reports (runs/PAIR)")
    command.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="SIDE=PATH",
        help="the interpreter of a side, instead of the pair file's; may be repeated",
    )
    command.add_argument("--fresh", action="store_true", help="record again what did not change")


def do_compare(options: argparse.Namespace) -> int:
    """`parity compare`."""
    from parity.api import compare_traces, tell
    from parity.comparison.trace import read_trace
    from parity.folder import compare_folder
    from parity.matching.declared import read_declared

    names = read_declared(options.names) if options.names else None
    if len(options.traces) == 1 and options.traces[0].is_dir():
        comparison, traces = compare_folder(options.traces[0], names)
    else:
        traces = [read_trace(path) for path in options.traces]
        comparison = compare_traces(traces, names)
    return tell(comparison, traces, options.out, junit=options.junit)


def do_show(options: argparse.Namespace) -> int:
    """`parity show`."""
    from parity.comparison.trace import read_trace
    from parity.report.show import tap_lines, trace_lines

    trace = read_trace(options.trace)
    if options.tap:
        lines = tap_lines(trace, options.tap)
    else:
        lines = trace_lines(trace, options.stage)
    for line in lines:
        print(line)
    return 0


def do_run(options: argparse.Namespace) -> int:
    """`parity run`."""
    from parity.api import tell
    from parity.folder import compare_folder
    from parity.report.files import PAGE

    out = folder_of(options)
    names = record(options, out)
    comparison, traces = compare_folder(out, names)
    code = tell(comparison, traces, out)
    page = (out / PAGE).resolve()
    if page.is_file():
        print(f"page: {page}")
        if options.open:
            webbrowser.open(page.as_uri())
    return code


def folder_of(options: argparse.Namespace) -> Path:
    """Where the recordings of a pair file go."""
    out: Path = options.out or Path("runs") / options.pair.stem
    return out


def record(options: argparse.Namespace, out: Path) -> "Declared":
    """Record both sides; returns the names and layouts that the pair file declares."""
    from parity.matching.declared import Declared
    from parity.recording.runner import record_pair

    recorded = record_pair(options.pair, out, pythons(options.python), options.fresh)
    for note in recorded.notes:
        print(f"note: {note}")
    return Declared(recorded.pair.names, recorded.pair.layouts)


def pythons(texts: Sequence[str]) -> dict[str, str]:
    """`SIDE=PATH` -> the interpreter of each side.

    Raises:
        ParityError: a text is not of this form.
    """
    found = {}
    for text in texts:
        side, equals, path = text.partition("=")
        if not (side and equals and path):
            raise ParityError(
                f"--python {text}: expected SIDE=PATH, such as candidate=env/bin/python"
            )
        found[side] = path
    return found
