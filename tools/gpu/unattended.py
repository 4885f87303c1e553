"""Run stages one after the other, each with a time limit, and keep the output of each.

    python3 tools/gpu/unattended.py OUT [--kit KIT --site SITE [--hide PACKAGE ...]]
        [--only NAME ...] [--budget SECONDS]

With a kit of wheels (tools/gpu/offline_kit.py) it first makes an environment of them in SITE, on
top of this interpreter's packages. `--hide jax` makes `import jax` fail there as if JAX were not
installed: grain imports JAX if it can, and JAX does not work with the kit's numpy.

A stage is a shell command. Bash runs it in the project's folder with two variables: PYTHON, the
interpreter with this project's packages on its path; STAGE, an empty folder for the stage's output.
When a stage ends, by itself or at its limit, OUT/NAME.tar.gz holds that folder and its log, and
OUT/summary.json its outcome. So a run that is cut off keeps all finished stages. After a failed
stage the next stage runs. When the seconds of the budget are used up, a stage is cut off and the
stages after it are left out. Exit code: 0 if all stages ran and ended with 0, else 1. The script
needs no other Python file of the project, only PyYAML.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TAIL = 15  # lines of a log that are shown
SHORTEST = 5.0  # seconds that must be left to begin a stage


@dataclass(frozen=True)
class Stage:
    """A command and its time limit in seconds."""

    name: str
    command: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """How a stage ended: its exit status, `timeout`, or `left out`."""

    name: str
    status: int | str
    seconds: float


def read_stages(path: Path, only: list[str]) -> list[Stage]:
    """The stages of a file, or only the named ones, in the file's order."""
    stages = [Stage(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    unknown = set(only) - {stage.name for stage in stages}
    if unknown:
        names = ", ".join(stage.name for stage in stages)
        sys.exit(f"error: --only {' '.join(sorted(unknown))}: expected some of {names}")
    return [stage for stage in stages if not only or stage.name in only]


def make_environment(site: Path, kit: Path, hidden: list[str]) -> str:
    """Make an environment in which the kit's wheels come before this interpreter's packages.

    The hidden packages are not found in it.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", site], check=True)
    python = str(site / "bin/python")
    query = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    own = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in own)
    (Path(packages) / "beneath.pth").write_text(lines, encoding="utf-8")
    for package in hidden:
        refusal = f"raise ModuleNotFoundError('hidden by --hide', name={package!r})\n"
        (Path(packages) / f"{package}.py").write_text(refusal, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", python]
    install = [*pip, "install", "-q", "--no-index", "--no-deps", "--force-reinstall"]
    with tarfile.open(kit) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder, filter="data")
        subprocess.run([*install, *sorted(map(str, Path(folder).glob("*.whl")))], check=True)
    subprocess.run([*pip, "check"])  # logs conflicts with packages already there; does not stop
    return python


def run_stage(stage: Stage, out: Path, limit: float, python: str) -> Result:
    """Run a stage, end it and all its children at the limit, and pack its output."""
    folder = out / stage.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    environment = os.environ | {
        "PYTHON": python,
        "STAGE": str(folder.resolve()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *map(os.path.abspath, inherited)]),
    }
    start = time.monotonic()
    log = folder / "log.txt"
    status: int | str = "interrupted"
    try:
        with log.open("wb") as sink:
            child = subprocess.Popen(
                ["bash", "-c", stage.command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = child.wait(limit)
            except subprocess.TimeoutExpired:
                status = "timeout"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # also ends children that still run
                child.wait()
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-TAIL:]), flush=True)
    finally:
        temporary = out / f"{stage.name}.tar.gz.part"
        with tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
            archive.add(folder, stage.name)
        temporary.replace(out / f"{stage.name}.tar.gz")
        shutil.rmtree(folder)
    return Result(stage.name, status, round(time.monotonic() - start, 1))


def main() -> int:
    """Run all stages; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--stages", type=Path, default=ROOT / "tools/gpu/stages.yaml")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--kit", type=Path, help="wheels that go before installed ones")
    parser.add_argument("--site", type=Path, help="with --kit: folder of the new environment")
    parser.add_argument("--hide", nargs="*", default=[], help="with --kit: packages to hide")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for all stages")
    args = parser.parse_args()
    if bool(args.kit) != bool(args.site):
        parser.error("--kit and --site: expected both or neither")
    if args.kit and not args.kit.is_file():
        parser.error(f"--kit {args.kit}: expected an archive that tools/gpu/offline_kit.py made")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    stages = read_stages(args.stages, args.only)
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.budget
    python = make_environment(args.site, args.kit, args.hide) if args.kit else sys.executable
    results: list[Result] = []
    for stage in stages:
        left = end - time.monotonic()
        print(f"== {stage.name}: {stage.command.strip()}", flush=True)
        if left < SHORTEST:
            results.append(Result(stage.name, "left out", 0.0))
        else:
            results.append(run_stage(stage, args.out, min(stage.seconds, left), python))
        print(f"== {stage.name}: {results[-1].status}, {results[-1].seconds} s", flush=True)
        summary = json.dumps([asdict(result) for result in results], indent=1)
        (args.out / "summary.json").write_text(summary, encoding="utf-8")
    return 0 if all(result.status == 0 for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
