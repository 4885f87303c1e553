"""Where Jittor keeps its caches, and which paths Jittor can use."""

import importlib.util
import os
import stat
import sys
from pathlib import Path

from transfg_core.errors import UserError

# Jittor 1.3.11 puts paths into shell commands, partly without quotes (src/jit_compiler.cc), and
# drops the quotes of others (utils/asm_tuner.py). These characters mean something to a shell.
SPECIAL = frozenset(" \t\n\r'\"\\$`&|;<>()*?[]{}!#~")
SHARED = Path("/var/tmp")  # outlives a restart


def jittor_home() -> Path:
    """The folder that Jittor calls its home, with its caches in `.cache/jittor`.

    JITTOR_HOME, else the one that Jittor remembers from an earlier run, else the user's home.
    """
    import jittor_utils

    return Path(jittor_utils.home())


def special_in(path: str | Path) -> str:
    """The first character of the path that Jittor cannot use; empty if there is none."""
    return next((char for char in str(path) if char in SPECIAL), "")


def check_paths() -> None:
    """Refuse an environment whose path Jittor cannot use.

    Raises:
        UserError: it contains a space or another special character.
    """
    jittor = importlib.util.find_spec("jittor")
    for path in (sys.executable, jittor and jittor.origin or ""):
        if char := special_in(path):
            raise UserError(
                f"backend jittor: {path} contains {char!r}, and Jittor 1.3.11 cannot use such a "
                "path; create the virtual environment in a folder without special characters"
            )


def choose_home() -> None:
    """Set JITTOR_HOME if Jittor cannot use the path of the user's home folder.

    Raises:
        UserError: JITTOR_HOME contains a special character, or the folder that would replace the
            home folder belongs to somebody else.
        OSError: the folder cannot be made.
    """
    given = os.environ.get("JITTOR_HOME")
    home = given or str(Path.home())
    char = special_in(home)
    if not char:
        return
    if given:
        raise UserError(
            f"backend jittor: JITTOR_HOME={given} contains {char!r}, and Jittor 1.3.11 cannot use "
            "such a path; set JITTOR_HOME to a folder without special characters"
        )
    folder = SHARED / f"transfg-jittor-{os.getuid()}"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        print(
            f"Your home folder {home} contains {char!r}, and Jittor 1.3.11 cannot use such a path. "
            f"Its caches go to {folder}; set JITTOR_HOME to choose another folder.",
            file=sys.stderr,
        )
    status = folder.lstat()  # others may write to /var/tmp, and code is run from this folder
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UserError(
            f"backend jittor: {folder} is not a folder that you alone can write to, so Jittor's "
            "caches cannot be there; set JITTOR_HOME to a folder of yours without special "
            f"characters (your home folder {home} contains {char!r})"
        )
    os.environ["JITTOR_HOME"] = str(folder)
