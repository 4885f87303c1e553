"""A CUDA home that Jittor 1.3.11 can use, made of links to the CUDA of this machine.

Jittor needs one folder with nvcc, headers, and libraries without a version in their names, and was
written for CUDA up to 12. There is no such folder if the compiler comes from the system or from
wheels, and the libraries from PyTorch's wheels. docs/jittor.md ("CUDA") says what each part works
around. The home holds only what the twin needs: no cuDNN, cuFFT, cuSPARSE or NPP. This file is
longer than most, because it contains the texts of the headers and of the compiler's script.
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

OLDEST = 11  # supported major versions of CUDA
NEWEST = 13
LAST_CAPABILITY = (9, 0)  # Jittor 1.3.11 compiles only machine code, at most for this capability
# Libraries in loading order -> the wheels that contain them.
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

# src/misc/cuda_limits.h uses eight constants from NPP, an image processing library.
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

# CUDA 13 removed these from CUB; Jittor's softmax and `where` use them.
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

# A script, since Jittor would follow a link to nvcc and take the link's target for its home. Jittor
# requests C++14, which CUDA 13's CUB refuses, and fast but inexact functions.
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
    """The parts of CUDA: compiler and version, header folders (the compiler's own first), and
    the paths of LIBRARIES."""

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
    """The driver's first device, by CUDA_VISIBLE_DEVICES; None without a driver or a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, version, device, major, minor = (ctypes.c_int() for _ in range(5))
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGet(ctypes.byref(device), 0)
    for value, attribute in ((major, 75), (minor, 76)):  # compute capability
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    return Device((major.value, minor.value), version.value // 1000, name.value.decode())


def refuse_unfit(device: Device, toolkit: "Toolkit") -> None:
    """Check that this CUDA can drive this device.

    Raises:
        UserError: it cannot.
    """
    major = toolkit.version[0]
    name = f"compute capability {device.capability[0]}.{device.capability[1]}"
    if device.driver < major:
        raise UserError(
            f"{toolkit.nvcc} is CUDA {major}, but the driver knows CUDA up to {device.driver}; "
            f"update the driver, or set CUDA_HOME to a CUDA {device.driver}"
        )
    if device.capability > LAST_CAPABILITY:
        raise UserError(f"the device has {name}, but Jittor 1.3.11 compiles for 9.0 at most")
    if major >= 13 and device.capability < (7, 5):
        raise UserError(
            f"the device has {name}, but CUDA 13 needs at least 7.5; set CUDA_HOME to a CUDA 12"
        )


def wheel_folders(name: str) -> list[Path]:
    """Folders of this name (bin, lib, include) in the installed NVIDIA wheels."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    roots = list(spec.submodule_search_locations or []) if spec else []
    return [path for root in roots for path in sorted(Path(root).glob(f"*/{name}"))]


def is_other_cuda(folder: Path, major: int) -> bool:
    """Whether a wheel's folder, such as cu13/include, belongs to another major version."""
    version = re.fullmatch(r"cu(\d+)", folder.parent.name)
    return version is not None and int(version[1]) != major


def find_nvcc() -> tuple[Path, tuple[int, int], Path]:
    """The first CUDA compiler that runs, its version, and the folder of its toolkit.

    Raises:
        UserError: there is none, or its version is not supported.
    """
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [Path(home, "bin/nvcc") for home in homes]
    candidates += [Path(path) for path in [shutil.which("nvcc")] if path]
    candidates += SYSTEM
    candidates += [folder / "nvcc" for folder in wheel_folders("bin")]
    for nvcc in candidates:
        version = re.search(r"release (\d+)\.(\d+)", output_of(nvcc, "--version"))
        if version is None:
            continue
        major, minor = int(version[1]), int(version[2])
        if not OLDEST <= major <= NEWEST:
            raise UserError(
                f"{nvcc} is CUDA {major}.{minor}, but Jittor 1.3.11 is known to work with CUDA "
                f"{OLDEST} to {NEWEST}; set CUDA_HOME to one of these"
            )
        # nvcc may be a script or a link into another folder, so ask nvcc for its toolkit
        dry_run = output_of(nvcc, "--dryrun", "-x", "cu", os.devnull)
        top = re.search(r"^#\$ TOP=(.+)$", dry_run, re.M)
        home = Path(os.path.normpath(top[1])) if top else nvcc.resolve().parent.parent
        return home / "bin/nvcc", (major, minor), home
    raise UserError(
        "no CUDA compiler (nvcc) in CUDA_HOME, on PATH or among the wheels; "
        "run: pip install nvidia-cuda-nvcc nvidia-cuda-cccl"
    )


@functools.cache
def output_of(*command: str | Path) -> str:
    """The output of a command, both streams; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def file_name(library: str, major: int) -> str:
    """File name of a library of this CUDA; cuRAND, and cudart of CUDA 11, have other versions."""
    version = {"curand": "10", "cudart": "11.0" if major == 11 else str(major)}
    return f"lib{library}.so.{version.get(library, major)}"


def wheel_name(wheel: str, version: tuple[int, int]) -> str:
    """The name for pip, with a version for those wheels of CUDA 13 that have CUDA's version."""
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
    more = [path for path in wheel_folders("include") if not is_other_cuda(path, version[0])]
    include = tuple(path for path in [*own, *more] if path.is_dir())
    libraries, missing = {}, {}
    for library, wheel in LIBRARIES.items():
        name = file_name(library, version[0])
        file = next((path / name for path in folders if (path / name).is_file()), None)
        if file is None:
            missing[name] = wheel
        else:
            libraries[library] = file
    for header, wheel in HEADERS.items():
        if not any((path / sub / header).is_file() for path in include for sub in ("", "cccl")):
            missing[header] = wheel
    if missing:
        wheels = [wheel_name(wheel, version) for wheel in dict.fromkeys(missing.values())]
        raise UserError(
            f"CUDA {version[0]}.{version[1]} ({nvcc}) lacks these files: {', '.join(missing)}; "
            f"run: pip install {' '.join(wheels)}"
        )
    return Toolkit(nvcc, version, include, libraries)


def make_home(toolkit: Toolkit, parent: Path) -> Path:
    """The home for this toolkit in `parent`; created if missing, in one step."""
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
    """Create the home's contents in a folder, which will be moved to `home`."""
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
    """Link the contents of `source` into `target`; existing files stay, folders are merged."""
    for path in sorted(source.iterdir()):
        link = target / path.name
        if path.name in without:
            continue
        if not link.exists():
            link.symlink_to(path)
        elif path.is_dir() and link.is_dir() and not link.samefile(path):
            if link.is_symlink():
                linked = link.resolve()
                link.unlink()
                link.mkdir()
                link_tree(linked, link)
            link_tree(path, link)


def load(libraries: Iterable[Path]) -> None:
    """Load libraries globally, for code that links to them by name.

    Raises:
        OSError: one does not load; the message names it.
    """
    for path in libraries:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def load_home(nvcc: str) -> None:
    """Load the libraries of this nvcc's home, if `make_home` created it.

    Jittor's operators link to them by name, and the dynamic loader does not search the home.

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
            f"backend jittor: a library of CUDA does not load: {error}; set nvcc_path= in the "
            "environment to use the CPU"
        ) from error


def flags(major: int) -> str:
    """Compiler flags: they replace two fields that CUDA 13 lacks, in code that never runs."""
    return "-DcomputeMode=integrated -DclockRate=multiProcessorCount" if major >= 13 else ""
