"""Pack the wheels that this project needs on a machine without a package index.

    python tools/gpu/offline_kit.py build/kit.tar.xz --python 3.12 --has torch,matplotlib,pytest

Run it in the environment of `make setup`, with a package index. It follows the requirements of the
extras through the packages installed here, in the versions of constraints.txt. It leaves out the
packages that the other machine has (`--has`), and all packages that only they need. Jittor needs
numpy 1, so name a package in `--has` only if it works with numpy 1: SciPy 1.18 and later do not.
The wheels are compressed together, which makes them smaller. On the other machine, in the project's
folder:

    python3 tools/gpu/unattended.py OUT --kit build/kit.tar.xz --site SITE

This script needs no other file of the project but constraints.txt.
"""

import argparse
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "transfg"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]
# most of a wheel is machine code
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def pinned() -> dict[str, str]:
    """Versions of constraints.txt by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def needed(python: str, extras: set[str], has: set[str]) -> set[str]:
    """Canonical names of the packages that the extras need and the other machine lacks."""
    packages: set[str] = set()
    waiting = [(PROJECT, extras)]
    while waiting:
        package, wanted = waiting.pop()
        try:
            lines = requires(package) or []
        except PackageNotFoundError:
            sys.exit(f"error: {package} is not installed here; run `make setup` first")
        for requirement in map(Requirement, lines):
            name = canonicalize_name(requirement.name)
            target = {"python_version": python, "python_full_version": f"{python}.0"}
            marker = requirement.marker
            environments = [target | {"extra": extra} for extra in (wanted or {""})]
            if name in has or (marker and not any(map(marker.evaluate, environments))):
                continue
            if name not in packages or requirement.extras:
                waiting.append((name, set(requirement.extras)))
            packages.add(name)
    return packages - {PROJECT}


def fetch(package: str, python: str, out: Path) -> None:
    """Fetch a wheel for that Python, or build one from a pure Python source distribution."""
    options = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    options += [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "download", "-q", "--no-deps", *options, "-d", str(out), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(out), package], check=True)
    name = re.split(r"==", package)[0]
    built = [path for path in out.glob("*.whl") if same(path, name)]
    if not all(path.stem.endswith("-none-any") for path in built):
        for path in built:
            path.unlink()
        sys.exit(f"error: {package} has no wheel for Python {python}:\n{done.stderr.strip()}")


def same(wheel: Path, package: str) -> bool:
    """Whether the file is a wheel of the package."""
    return canonicalize_name(wheel.name.split("-")[0]) == canonicalize_name(package)


def pack(wheels: list[Path], out: Path) -> None:
    """Pack wheels into one archive; their content is stored uncompressed, to be compressed once.

    The packages' own tests are left out: they are a sixth of SciPy.
    """
    temporary = out.with_name(f"{out.name}.part")
    with (
        tempfile.TemporaryDirectory() as folder,
        lzma.open(temporary, "wb", filters=FILTERS) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for wheel in wheels:
            plain = Path(folder, wheel.name)
            with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(plain, "w") as target:
                for entry in source.infolist():
                    if "tests" in entry.filename.split("/")[1:-1]:
                        continue
                    target.writestr(entry, source.read(entry), zipfile.ZIP_STORED)
            archive.add(plain, wheel.name)
            plain.unlink()
    temporary.replace(out)


def main() -> None:
    """Write the archive; replace an earlier one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the archive to write, such as build/kit.tar.xz")
    parser.add_argument("--python", default="3.12", help="Python version of the other machine")
    parser.add_argument("--extras", default="jittor,report,test")
    parser.add_argument("--has", default="torch", help="packages that the other machine has")
    parser.add_argument("--limit", type=float, default=64, help="largest size in MiB")
    args = parser.parse_args()
    has = {canonicalize_name(name) for name in args.has.split(",")}
    versions = pinned()
    names = needed(args.python, set(args.extras.split(",")), has)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(names):
            package = f"{name}=={versions[name]}" if name in versions else name
            print(package, flush=True)
            fetch(package, args.python, Path(folder))
        print("packing; this takes a minute or two", flush=True)
        pack(sorted(Path(folder).glob("*.whl")), args.out)
    size = args.out.stat().st_size / 2**20
    print(f"{args.out}: {len(names)} wheels, {size:.0f} MiB")
    if size > args.limit:
        sys.exit(f"error: more than --limit {args.limit:.0f} MiB; name more packages in --has")


if __name__ == "__main__":
    main()
