"""A CUDA home that Jittor 1.3.11 can use, made of links to the CUDA that the machine has.

Jittor wants one folder with nvcc, headers and libraries without version in their names, and was
written for CUDA up to 12. Where CUDA comes as a compiler from the system or from wheels, and as
libraries from PyTorch's wheels, no such folder exists. docs/jittor.md ("CUDA") tells what each
part works around. Only what the twin needs is there: no cuDNN, cuFFT, cuSPARSE or NPP.
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
from dataclasses import dataclass
from pathlib import Path

from transfg_core.errors import UserError

OLDEST = 11  # major versions of CUDA that are known
NEWEST = 13
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


def has_device() -> bool:
    """Whether the driver is there and shows a device (CUDA_VISIBLE_DEVICES counts)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 == driver.cuDeviceGetCount(ctypes.byref(count)) and count.value > 0


def wheel_folders(name: str) -> list[Path]:
    """Folders of this name (bin, lib, include) in the wheels that NVIDIA publishes."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    places = list(spec.submodule_search_locations or []) if spec else []
    return [path for place in places for path in sorted(Path(place).glob(f"*/{name}"))]


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
    include = tuple(path for path in [*own, *wheel_folders("include")] if path.is_dir())
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
    temporary = parent / f"{home.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    for name in ("bin", "include", "lib64", "shims/cub"):
        (temporary / name).mkdir(parents=True)
    for folder in toolkit.include:
        for path in sorted([*folder.glob("*"), *folder.glob("cccl/*")]):
            link = temporary / "include" / path.name
            if path.name != "cccl" and not link.is_symlink():
                link.symlink_to(path)
    if not (temporary / "include/npp.h").exists():
        (temporary / "include/npp.h").write_text(NPP, encoding="utf-8")
    if toolkit.version[0] >= 13:
        (temporary / "shims/cub/cub.cuh").write_text(CUB, encoding="utf-8")
    for name, library in toolkit.libraries.items():
        for link_name in (f"lib{name}.so", library.name):
            (temporary / "lib64" / link_name).symlink_to(library)
    shims = shlex.quote(str(home / "shims"))
    script = NVCC.format(nvcc=shlex.quote(str(toolkit.nvcc)), shims=shims)
    (temporary / "bin/nvcc").write_text(script, encoding="utf-8")
    (temporary / "bin/nvcc").chmod(0o755)
    try:
        temporary.rename(home)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)
        if not home.is_dir():
            raise
    return home


def load_libraries(nvcc: str) -> None:
    """Load the libraries of a home beside this nvcc, if it is one of ours.

    Jittor's operators link to them by name, and the loader does not search the home.
    """
    for name in LIBRARIES:
        path = Path(nvcc).parent.parent / "lib64" / f"lib{name}.so"
        if path.is_file() and "transfg-cuda-" in str(path):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def flags(major: int) -> str:
    """Compiler flags: two fields that Jittor reads are gone from CUDA 13, in code never run."""
    return "-DcomputeMode=integrated -DclockRate=multiProcessorCount" if major >= 13 else ""
