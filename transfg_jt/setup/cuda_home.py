"""A CUDA home that Jittor 1.3.11 can use, made of links to the CUDA that the machine has.

Jittor wants one folder with nvcc, headers and libraries without version in their names, and was
written for CUDA up to 12. Where CUDA comes as a compiler from the system or from wheels, and as
libraries from PyTorch's wheels, no such folder exists. docs/jittor.md ("CUDA") tells what each
part works around. Only what the twin needs is there: no cuDNN, cuFFT, cuSPARSE or NPP. Longer than
most files here, since the texts of the headers and of the compiler's script stand in it.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from transfg_core.errors import UserError

OLDEST = 11  # major versions of CUDA that are known
NEWEST = 13
LAST_CAPABILITY = (9, 0)  # Jittor 1.3.11 makes machine code alone, for this at most
# Libraries in the order in which they are loaded, and the wheels that hold them.
LIBRARIES = {
    "cudart": "nvidia-cuda-runtime",
    "cublasLt": "nvidia-cublas",
    "cublas": "nvidia-cublas",
    "curand": "nvidia-curand",
}
HEADERS = {
    "cuda_runtime.h": "nvidia-cuda-runtime",
    "crt/host_config.h": "nvidia-cuda-crt",
    "cublas_v2.h": "nvidia-cublas",
    "curand.h": "nvidia-curand",
    "cub/cub.cuh": "nvidia-cuda-cccl",
}

SYSTEM = (Path("/usr/local/cuda/bin/nvcc"), Path("/opt/cuda/bin/nvcc"))

# src/misc/cuda_limits.h takes eight numbers from a library of image processing.
NPP = """\
#pragma once
#include <climits>
#define NPP_MIN_32U 0
#define NPP_MAX_32U UINT_MAX
#define NPP_MIN_32S INT_MIN
#define NPP_MAX_32S INT_MAX
#define NPP_MIN_64U 0
#define NPP_MAX_64U ULLONG_MAX
#define NPP_MIN_64S LLONG_MIN
#define NPP_MAX_64S LLONG_MAX
"""

# CUB lost these in CUDA 13; Jittor's softmax and `where` name them.
CUB = """\
#pragma once
#include_next <cub/cub.cuh>
#include <cuda/functional>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
namespace cub {
using Max = ::cuda::maximum<>;
using Min = ::cuda::minimum<>;
template <typename T> using CountingInputIterator = thrust::counting_iterator<T>;
template <typename Value, typename Function, typename Iterator>
class TransformInputIterator : public thrust::transform_iterator<Function, Iterator, Value> {
  public:
    using thrust::transform_iterator<Function, Iterator, Value>::transform_iterator;
    __host__ __device__ TransformInputIterator(Iterator from, Function function)
        : thrust::transform_iterator<Function, Iterator, Value>(from, function) {}
};
}
"""

# Jittor follows a link to nvcc and takes what it finds for the home, so this is a script. It asks
# for C++14, which CUDA 13's CUB refuses, and for fast and inexact functions.
NVCC = """\
#!/bin/sh
for argument do
    shift
    case $argument in
        -std=c++14) argument=-std=c++17 ;;
        --use_fast_math) continue ;;
    esac
    set -- "$@" "$argument"
done
exec {nvcc} -I{shims} "$@"
"""


@dataclass(frozen=True)
class Toolkit:
    """Where the parts of CUDA lie: the compiler and its version, folders of headers (the
    compiler's own first), and each of LIBRARIES."""

    nvcc: Path
    version: tuple[int, int]
    include: tuple[Path, ...]
    libraries: dict[str, Path]


@dataclass(frozen=True)
class Device:
    """The first CUDA device: its compute capability, the CUDA version of the driver, its name."""

    capability: tuple[int, int]
    driver: int  # major
    name: str = "CUDA device 0"


def find_device() -> Device | None:
    """What the driver shows first (CUDA_VISIBLE_DEVICES counts); none without driver or device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, version, device, major, minor = (ctypes.c_int() for _ in range(5))
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGet(ctypes.byref(device), 0)
    for value, attribute in ((major, 75), (minor, 76)):  # of the compute capability
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    return Device((major.value, minor.value), version.value // 1000, name.value.decode())


def refuse_unfit(device: Device, toolkit: "Toolkit") -> None:
    """Raise UserError where this CUDA cannot drive this device."""
    major = toolkit.version[0]
    name = f"compute capability {device.capability[0]}.{device.capability[1]}"
    if device.driver < major:
        raise UserError(
            f"{toolkit.nvcc} is of CUDA {major}, and the driver knows CUDA up to {device.driver}; "
            f"update the driver, or set CUDA_HOME to a CUDA {device.driver}"
        )
    if device.capability > LAST_CAPABILITY:
        raise UserError(f"the device has {name}, and Jittor 1.3.11 compiles for 9.0 at most")
    if major >= 13 and device.capability < (7, 5):
        raise UserError(f"the device has {name}, and CUDA 13 wants 7.5; set CUDA_HOME to a CUDA 12")


def wheel_folders(name: str) -> list[Path]:
    """Folders of this name (bin, lib, include) in the wheels that NVIDIA publishes."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    places = list(spec.submodule_search_locations or []) if spec else []
    return [path for place in places for path in sorted(Path(place).glob(f"*/{name}"))]


def of_another_cuda(folder: Path, major: int) -> bool:
    """Whether a wheel's folder, such as cu13/include, belongs to another major version."""
    version = re.fullmatch(r"cu(\d+)", folder.parent.name)
    return version is not None and int(version[1]) != major


def find_nvcc() -> tuple[Path, tuple[int, int], Path]:
    """The first CUDA compiler that runs, its version, and the toolkit that it belongs to.

    Raises:
        UserError: there is none, or its version is not known to work.
    """
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [Path(home, "bin/nvcc") for home in homes]
    candidates += [Path(found) for found in [shutil.which("nvcc")] if found]
    candidates += SYSTEM
    candidates += [folder / "nvcc" for folder in wheel_folders("bin")]
    for nvcc in candidates:
        told = answer(nvcc, "--version")
        version = re.search(r"release (\d+)\.(\d+)", told)
        if version is None:
            continue
        major, minor = int(version[1]), int(version[2])
        if not OLDEST <= major <= NEWEST:
            raise UserError(
                f"{nvcc} is of CUDA {major}.{minor}, and Jittor 1.3.11 is known to work with CUDA "
                f"{OLDEST} to {NEWEST}; set CUDA_HOME to one of these"
            )
        # nvcc may be a script or a link that leads elsewhere, so it is asked
        top = re.search(r"^#\$ TOP=(.+)$", answer(nvcc, "--dryrun", "-x", "cu", os.devnull), re.M)
        home = Path(os.path.normpath(top[1])) if top else nvcc.resolve().parent.parent
        return home / "bin/nvcc", (major, minor), home
    raise UserError(
        "no CUDA compiler (nvcc) in CUDA_HOME, on PATH or among the wheels; "
        "run: pip install nvidia-cuda-nvcc nvidia-cuda-cccl"
    )


@functools.cache
def answer(*command: str | Path) -> str:
    """What a command prints; nothing where it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def file_name(library: str, major: int) -> str:
    """Of the library that goes with this CUDA: cuRAND counts by itself, and CUDA 11 in full."""
    version = {"curand": "10", "cudart": "11.0" if major == 11 else str(major)}
    return f"lib{library}.so.{version.get(library, major)}"


def wheel_name(wheel: str, version: tuple[int, int]) -> str:
    """As pip installs it: wheels of CUDA 13 that count like CUDA have its version."""
    major, minor = version
    if major < 13:
        return f"{wheel}-cu{major}"
    return f"'{wheel}=={major}.{minor}.*'" if wheel.startswith("nvidia-cuda-") else wheel


def find_toolkit() -> Toolkit:
    """Every part of CUDA that Jittor and the twin need.

    Raises:
        UserError: something is missing, with the command that provides it.
    """
    nvcc, version, home = find_nvcc()
    machine = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    folders = [home / "lib64", home / "lib", *sorted(home.glob("targets/*/lib"))]
    folders += [*wheel_folders("lib"), machine]
    own = [home / "include", *sorted(home.glob("targets/*/include"))]
    more = [path for path in wheel_folders("include") if not of_another_cuda(path, version[0])]
    include = tuple(path for path in [*own, *more] if path.is_dir())
    libraries, missing = {}, {}
    for library, wheel in LIBRARIES.items():
        name = file_name(library, version[0])
        found = next((path / name for path in folders if (path / name).is_file()), None)
        if found is None:
            missing[name] = wheel
        else:
            libraries[library] = found
    for header, wheel in HEADERS.items():
        if not any((path / x / header).is_file() for path in include for x in ("", "cccl")):
            missing[header] = wheel
    if missing:
        wheels = [wheel_name(wheel, version) for wheel in dict.fromkeys(missing.values())]
        raise UserError(
            f"of CUDA {version[0]}.{version[1]} ({nvcc}) these are missing: {', '.join(missing)}; "
            f"run: pip install {' '.join(wheels)}"
        )
    return Toolkit(nvcc, version, include, libraries)


def make_home(toolkit: Toolkit, parent: Path) -> Path:
    """The home for this toolkit below `parent`; it appears whole, and is made once."""
    facts = repr((toolkit, NPP, CUB, NVCC))
    digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
    home = parent / f"transfg-cuda-{toolkit.version[0]}.{toolkit.version[1]}-{digest}"
    if home.is_dir():
        return home
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=parent))
    try:
        fill_home(toolkit, temporary, home)
        temporary.chmod(0o755)
        temporary.rename(home)
    except OSError:
        if not home.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return home


def fill_home(toolkit: Toolkit, folder: Path, home: Path) -> None:
    """Make the home's contents in a folder that will be moved to `home`."""
    for name in ("bin", "include", "lib64", "shims/cub"):
        (folder / name).mkdir(parents=True)
    for source in toolkit.include:
        link_tree(source, folder / "include", {"cccl"})
        if (source / "cccl").is_dir():
            link_tree(source / "cccl", folder / "include")
    if not (folder / "include/npp.h").exists():
        (folder / "include/npp.h").write_text(NPP, encoding="utf-8")
    if toolkit.version[0] >= 13:
        (folder / "shims/cub/cub.cuh").write_text(CUB, encoding="utf-8")
    for name, library in toolkit.libraries.items():
        for link_name in (f"lib{name}.so", library.name):
            (folder / "lib64" / link_name).symlink_to(library)
    shims = shlex.quote(str(home / "shims"))
    script = NVCC.format(nvcc=shlex.quote(str(toolkit.nvcc)), shims=shims)
    (folder / "bin/nvcc").write_text(script, encoding="utf-8")
    (folder / "bin/nvcc").chmod(0o755)


def link_tree(source: Path, target: Path, without: Container[str] = ()) -> None:
    """Links in `target` to all that `source` holds; what is there stays, folders are merged."""
    for path in sorted(source.iterdir()):
        link = target / path.name
        if path.name in without:
            continue
        if not link.exists():
            link.symlink_to(path)
        elif path.is_dir() and link.is_dir() and not link.samefile(path):
            if link.is_symlink():
                first = link.resolve()
                link.unlink()
                link.mkdir()
                link_tree(first, link)
            link_tree(path, link)


def load(libraries: Iterable[Path]) -> None:
    """Load libraries for whoever links to them by name; OSError tells what is wrong with one."""
    for path in libraries:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def load_home(nvcc: str) -> None:
    """Load the libraries of a home beside this nvcc, if it is one of ours.

    Jittor's operators link to them by name, and the loader does not search the home.

    Raises:
        UserError: one does not load.
    """
    home = Path(nvcc).parent.parent
    if not home.name.startswith("transfg-cuda-"):
        return
    try:
        load(home / f"lib64/lib{name}.so" for name in LIBRARIES)
    except OSError as error:
        raise UserError(
            f"backend jittor: a library of CUDA does not load: {error}; nvcc_path= in the "
            "environment keeps Jittor on the CPU"
        ) from error


def flags(major: int) -> str:
    """Compiler flags: two fields that Jittor reads are gone from CUDA 13, in code never run."""
    return "-DcomputeMode=integrated -DclockRate=multiProcessorCount" if major >= 13 else ""
