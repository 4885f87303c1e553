"""The CUDA home made for Jittor, from toolkits of scripts and empty files."""

import ctypes
import subprocess

import pytest

from transfg_core.errors import UserError
from transfg_jt.setup import cuda_home, start

REAL_CDLL = ctypes.CDLL
COMPILER = """#!/bin/sh
case $1 in
--version) echo "Cuda compilation tools, release {version}, V{version}.88";;
--dryrun) echo "#$ TOP={home}/bin/.." >&2;;
*) for argument do echo "$argument"; done;;
esac
"""
LIBRARIES = {
    11: ("libcudart.so.11.0", "libcublasLt.so.11", "libcublas.so.11", "libcurand.so.10"),
    12: ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10"),
    13: ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"),
}
HEADERS = ("cuda_runtime.h", "crt/host_config.h", "cublas_v2.h", "curand.h")


def fill(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """Function that makes a toolkit of a version; it hides this machine's own CUDA."""
    wheels = tmp_path / "wheels"
    monkeypatch.setattr(cuda_home, "wheel_folders", lambda name: sorted(wheels.glob(f"*/{name}")))
    monkeypatch.setattr(cuda_home.shutil, "which", lambda name: None)
    monkeypatch.setattr(cuda_home.sysconfig, "get_config_var", lambda name: "no-such-folder")
    monkeypatch.delenv("CUDA_PATH", raising=False)

    def make(version, libraries=None, headers=(*HEADERS, "cccl/cub/cub.cuh", "cccl/cuda/version")):
        home = tmp_path / f"cuda-{version}"
        fill(
            home / "lib64",
            LIBRARIES[int(version.split(".")[0])] if libraries is None else libraries,
        )
        fill(home / "include", headers)
        fill(home / "bin", ["nvcc"])
        (home / "bin/nvcc").write_text(COMPILER.format(version=version, home=home))
        (home / "bin/nvcc").chmod(0o755)
        monkeypatch.setenv("CUDA_HOME", str(home))
        return home

    return make


@pytest.mark.parametrize("version", ["11.8", "12.4", "13.0"])
def test_home_holds_what_jittor_asks_for(toolkit, tmp_path, version):
    source = toolkit(version)
    home = cuda_home.make_home(cuda_home.find_toolkit(), tmp_path)
    for library in ("cudart", "cublas", "cublasLt", "curand"):
        link = home / "lib64" / f"lib{library}.so"
        assert link.read_text().startswith(f"lib{library}.so.")
        assert link.resolve().parent == source / "lib64"
    for header in (*HEADERS, "cub/cub.cuh", "cuda/version", "npp.h"):
        assert (home / "include" / header).is_file(), header
    assert "NPP_MAX_64U" in (home / "include/npp.h").read_text()
    assert (home / "shims/cub/cub.cuh").exists() == (version == "13.0")
    assert bool(cuda_home.flags(int(version[:2]))) == (version == "13.0")
    again = cuda_home.make_home(cuda_home.find_toolkit(), tmp_path)
    assert again == home and len(list(tmp_path.glob("transfg-cuda-*"))) == 1


def test_the_compiler_gets_the_flags_that_work(toolkit, tmp_path):
    toolkit("13.0")
    home = cuda_home.make_home(cuda_home.find_toolkit(), tmp_path)
    command = [home / "bin/nvcc", "-std=c++14", "a b.cu", "--use_fast_math", "-o", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"-I{home}/shims", "-std=c++17", "a b.cu", "-o", "x"]


def test_a_header_of_the_toolkit_stays(toolkit, tmp_path):
    source = toolkit("12.4", headers=(*HEADERS, "cub/cub.cuh", "npp.h"))
    home = cuda_home.make_home(cuda_home.find_toolkit(), tmp_path)
    assert (home / "include/npp.h").resolve() == source / "include/npp.h"


def test_libraries_come_from_wheels_where_the_toolkit_has_none(toolkit, tmp_path):
    toolkit("13.0", libraries=["libcudart.so.13"], headers=["cuda_runtime.h", "crt/host_config.h"])
    wheel = tmp_path / "wheels/cu13"
    fill(wheel / "lib", LIBRARIES[13])
    fill(wheel / "include", ["cublas_v2.h", "curand.h", "cccl/cub/cub.cuh"])
    home = cuda_home.make_home(cuda_home.find_toolkit(), tmp_path)
    assert (home / "lib64/libcublas.so.13").resolve().parent == wheel / "lib"
    assert (home / "lib64/libcudart.so").resolve().parent != wheel / "lib"
    assert (home / "include/cublas_v2.h").resolve().parent == wheel / "include"


def test_a_library_of_another_cuda_does_not_count(toolkit):
    toolkit("12.4", libraries=LIBRARIES[13])
    with pytest.raises(UserError) as caught:
        cuda_home.find_toolkit()
    assert "libcudart.so.12, libcublasLt.so.12, libcublas.so.12;" in str(caught.value)
    assert "pip install nvidia-cuda-runtime-cu12 nvidia-cublas-cu12" in str(caught.value)


def test_what_is_missing_is_named_with_its_wheels(toolkit):
    toolkit("13.0", libraries=["libcudart.so.13"], headers=["cuda_runtime.h", "crt/host_config.h"])
    with pytest.raises(UserError) as caught:
        cuda_home.find_toolkit()
    assert "CUDA 13.0" in str(caught.value) and "cub/cub.cuh" in str(caught.value)
    wheels = "nvidia-cublas nvidia-curand 'nvidia-cuda-cccl==13.0.*'"
    assert str(caught.value).endswith(f"run: pip install {wheels}")


@pytest.mark.parametrize("version", ["10.2", "14.1"])
def test_other_versions_are_refused(toolkit, version):
    toolkit(version, libraries=[])
    with pytest.raises(UserError, match=rf"CUDA {version}.*CUDA 11 to 13; set CUDA_HOME"):
        cuda_home.find_toolkit()


def test_a_compiler_that_does_not_run_is_none(toolkit, monkeypatch):
    home = toolkit("13.0")
    (home / "bin/nvcc").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(cuda_home, "SYSTEM", ())
    with pytest.raises(UserError, match=r"no CUDA compiler .*pip install nvidia-cuda-nvcc"):
        cuda_home.find_toolkit()


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """The environment that `choose_device` changes, on a machine with a CUDA device."""
    variables = {"PATH": "/usr/bin"}
    monkeypatch.setattr(start.os, "environ", variables)
    monkeypatch.setattr(start, "jittor_home", lambda: tmp_path)
    monkeypatch.setattr(cuda_home, "find_device", lambda: cuda_home.Device((9, 0), 13))
    monkeypatch.setattr(cuda_home.ctypes, "CDLL", lambda path, mode: loaded.append(path))
    loaded = variables["loaded"] = []
    (tmp_path / ".cache/jittor").mkdir(parents=True)
    return variables


def test_a_device_is_used_where_cuda_is_complete(toolkit, environment):
    environment["cc_flags"] = "-g"
    environment["CUDA_HOME"] = str(toolkit("13.0"))
    start.choose_device()
    assert environment["nvcc_path"].endswith("/bin/nvcc")
    assert [path.rpartition("/")[2] for path in environment["loaded"]] == [
        *LIBRARIES[13], "libcudart.so", "libcublasLt.so", "libcublas.so", "libcurand.so"
    ]  # fmt: skip
    wanted = {"use_mkl": "0", "cache_name": "transfg-cuda-2", "conv_opt": "1"}
    assert wanted.items() <= environment.items()
    assert environment["cc_flags"].startswith("-g -DcomputeMode=")


def test_without_a_part_of_cuda_the_cpu_is_used_with_a_message(toolkit, environment, capsys):
    environment["CUDA_HOME"] = str(toolkit("12.4", libraries=[]))
    start.choose_device()
    wanted = {"nvcc_path": "", "use_mkl": "1", "cache_name": "transfg-cpu-2"}
    assert wanted.items() <= environment.items() and not environment["loaded"]
    said = capsys.readouterr().err
    assert "runs on the CPU" in said and "pip install nvidia-cuda-runtime-cu12" in said


@pytest.mark.parametrize("given", ["", "/opt/mine/bin/nvcc"])
def test_what_the_user_says_wins(environment, given):
    environment |= {"nvcc_path": given, "cache_name": ""}
    start.choose_device()
    assert environment["nvcc_path"] == given and not environment["loaded"]
    assert environment["cache_name"] == ("transfg-cuda-2" if given else "transfg-cpu-2")
    assert "cc_flags" not in environment


def test_a_library_that_does_not_load_is_no_reason_to_stop(
    toolkit, environment, monkeypatch, capsys
):
    """The library files are empty, so that the loader refuses them."""
    environment["CUDA_HOME"] = str(toolkit("13.0"))
    monkeypatch.setattr(cuda_home.ctypes, "CDLL", REAL_CDLL)
    start.choose_device()
    assert environment["nvcc_path"] == ""
    assert "runs on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("capability", "driver", "version", "words"),
    [
        ((9, 0), 12, "13.0", "the driver knows CUDA up to 12"),
        ((10, 0), 13, "13.0", "compiles for 9.0 at most"),
        ((7, 0), 13, "13.0", "CUDA 13 needs at least 7.5"),
        ((7, 0), 13, "12.4", ""),
    ],
)
def test_a_device_that_this_cuda_cannot_drive(toolkit, capability, driver, version, words):
    toolkit(version)
    device, parts = cuda_home.Device(capability, driver), cuda_home.find_toolkit()
    if not words:
        cuda_home.refuse_unfit(device, parts)
        return
    with pytest.raises(UserError, match=words):
        cuda_home.refuse_unfit(device, parts)


def test_folders_of_two_sources_are_merged(toolkit, tmp_path):
    toolkit("13.0", headers=["cuda_runtime.h", "crt/own.h", "cub/cub.cuh"])
    names = ["cublas_v2.h", "curand.h", "crt/host_config.h", "crt/own.h"]
    fill(tmp_path / "wheels/cu13/include", names)
    fill(tmp_path / "wheels/cu12/include", [*names, "crt/old.h"])
    home = cuda_home.make_home(cuda_home.find_toolkit(), tmp_path)
    crt = home / "include/crt"
    assert {path.name for path in crt.iterdir()} == {"own.h", "host_config.h"}
    assert "cuda-13.0" in str((crt / "own.h").resolve())


def test_a_home_that_cannot_be_finished_leaves_nothing(toolkit, tmp_path, monkeypatch):
    toolkit("13.0")
    parts = cuda_home.find_toolkit()
    monkeypatch.setattr(cuda_home, "link_tree", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cuda_home.make_home(parts, tmp_path)
    assert not list(tmp_path.glob("transfg-cuda-*"))
