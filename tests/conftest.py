"""Options of the test run: the backends it declares."""

import signal

import pytest

from transfg_core.backend import BACKENDS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends",
        default="torch",
        metavar="NAMES",
        help=f"backends that tests/backend must cover, of {','.join(BACKENDS)} (default: torch)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # a shell's background jobs ignore SIGINT, and so would the processes that tests interrupt
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    names = declared(config)
    unknown = [name for name in names if name not in BACKENDS]
    if unknown or not names:
        raise pytest.UsageError(
            f"--backends {config.getoption('--backends')}: expected some of {','.join(BACKENDS)}"
        )
    config.addinivalue_line("markers", "only(name): concerns this backend alone")


def pytest_report_header(config: pytest.Config) -> str:
    return f"declared backends: {', '.join(declared(config))}"


def declared(config: pytest.Config) -> list[str]:
    """The names in --backends, each once."""
    names = config.getoption("--backends").split(",")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))
