"""oneDNN for Jittor's CPU operators, without root and without Jittor's own download."""

import os
import sys
import sysconfig
from pathlib import Path

from transfg_core.errors import UserError
from transfg_jt.setup.home import jittor_home

# Jittor looks for oneDNN here, below its home; if it finds the library, it downloads nothing.
ONEDNN_FOLDER = Path(".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp")
SYSTEM_INCLUDE = Path("/usr/include")


def find_onednn() -> tuple[Path, Path]:
    """oneDNN 2.x as (include folder, library): from the package index's wheel, else from Debian.

    Raises:
        UserError: neither is installed.
    """
    system = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    for include, library in (
        (Path(sys.prefix, "include"), Path(sys.prefix, "lib/libdnnl.so.2")),
        (SYSTEM_INCLUDE, system / "libdnnl.so.2"),
    ):
        if (include / "dnnl.hpp").is_file() and library.is_file():
            return include, library
    raise UserError(
        f"backend jittor: oneDNN 2.x is missing (no libdnnl.so.2 in {sys.prefix}/lib); "
        "run: pip install onednn-devel-cpu-gomp==2022.2.1"
    )


def link_onednn() -> None:
    """Link oneDNN into the folder that Jittor would otherwise download.

    Raises:
        UserError: oneDNN is not installed.
        OSError: the links cannot be written.
    """
    folder = jittor_home() / ONEDNN_FOLDER
    library = folder / "lib/libmkldnn.so"
    if library.is_file() and not library.is_symlink():
        return  # Jittor downloaded it earlier
    include, source = find_onednn()
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    for link, target in (
        (folder / "include", include),
        (library, source),
        (folder / "lib/libdnnl.so.2", source),
    ):
        if link.is_symlink() and Path(os.readlink(link)) == target:
            continue
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)


def onednn_include() -> Path:
    """Folder of dnnl.h, for operators written in C++."""
    return jittor_home() / ONEDNN_FOLDER / "include"
