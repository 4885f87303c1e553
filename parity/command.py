"""The command `parity`: compare two programs by what they recorded.

    parity run pair.py               record both sides of a pair, each in its environment; compare
    parity record pair.py SIDE       record one side, where the other has another machine
    parity compare A B ...           compare traces, or the folder of a recorded pair
    parity show TRACE                what a trace holds

Exit codes: 0 equivalent; 1 different; 2 undecided, or the input is refused; 3 less precise.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parity.errors import ParityError

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
        text = "interrupted; what is recorded stays; run the command again to resume"
        print(text, file=sys.stderr)
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

    apart = _command(commands, "record", do_record, "record one side of a pair, then the other")
    apart.add_argument("pair", type=Path, help="the pair file (Python)")
    apart.add_argument("side", choices=("baseline", "candidate"))
    _add_recording(apart)

    compare = _command(commands, "compare", do_compare, "compare traces; needs no framework")
    compare.add_argument(
        "traces",
        nargs="+",
        type=Path,
        metavar="TRACE",
        help="baseline, candidate, then evidence; or the folder of a recorded pair",
    )
    compare.add_argument("--names", type=Path, help="YAML: names and layouts")
    compare.add_argument("--out", type=Path, help="folder for the reports")
    compare.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit's XML here")

    show = _command(commands, "show", do_show, "show what a trace holds")
    show.add_argument("trace", type=Path, help="a trace, or a folder of traces")
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
    command.add_argument("--out", type=Path, help="folder for traces and reports (parity-PAIR)")
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
    from parity.folder import compare_folder, source_changes
    from parity.matching.declared import read_declared

    names = read_declared(options.names) if options.names else None
    notes: list[str] = []
    if len(options.traces) == 1 and options.traces[0].is_dir():
        comparison, traces = compare_folder(options.traces[0], names)
        notes += [text for text in [source_changes(options.traces[0])] if text]
    else:
        traces = [read_trace(path) for path in options.traces]
        comparison = compare_traces(traces, names)
    return tell(comparison, traces, options.out, junit=options.junit, notes=notes)


def do_show(options: argparse.Namespace) -> int:
    """`parity show`."""
    from parity.comparison.trace import read_trace
    from parity.report.show import folder_lines, tap_lines, trace_lines

    if options.trace.is_dir():
        if options.tap or options.stage:
            raise ParityError(f"{options.trace}: --tap and --stage are for one trace, not a folder")
        for line in folder_lines(options.trace):
            print(line)
        return 0
    trace = read_trace(options.trace)
    if options.tap:
        lines = tap_lines(trace, options.tap)
    else:
        lines = trace_lines(trace, options.stage)
    for line in lines:
        print(line)
    return 0


def end_like_an_interrupt() -> None:
    """Let other ends of this process be as Ctrl-C: then the processes of the sides end as well."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def do_run(options: argparse.Namespace) -> int:
    """`parity run`."""
    from parity.running import pythons_of, run_pair

    end_like_an_interrupt()
    pythons = pythons_of(options.python)
    return run_pair(options.pair, options.out, pythons, options.fresh, options.open)


def do_record(options: argparse.Namespace) -> int:
    """`parity record`."""
    from parity.recording.processes.apart import record_side
    from parity.recording.weights import note_on_order
    from parity.running import folder_of, progress, pythons_of

    end_like_an_interrupt()
    out = options.out or folder_of(options.pair)
    chosen = pythons_of(options.python)
    recorded = record_side(options.pair, options.side, out, chosen, options.fresh, progress)
    for note in [*recorded.notes, *note_on_order(recorded.guessed)]:
        print(f"note: {note}")
    return 0
