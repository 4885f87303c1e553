"""Headers that stand before Jittor's and oneDNN's own, and mend them."""

import hashlib
import os
from pathlib import Path

from transfg_jt.setup.home import jittor_home
from transfg_jt.setup.onednn import SYSTEM_INCLUDE, onednn_include

HEADERS = Path(__file__).with_name("include")


def header_flags(uses_onednn: bool) -> str:
    """Compiler flags with which the headers in `include` are found first.

    With them, signals wait while oneDNN computes (transfg_signals.h), and Jittor's tuners run one
    at a time (opt/tuner/tuner.h).

    The headers are copied to Jittor's cache: its flags are part of an operator's key, and so all
    checkouts of this project share operators. The folder's name changes with the headers, so that
    Jittor compiles again what included other ones.

    Raises:
        OSError: the headers cannot be written.
    """
    files = sorted(path for path in HEADERS.rglob("*.h*") if path.is_file())
    headers = {str(path.relative_to(HEADERS)): path.read_bytes() for path in files}
    digest = hashlib.sha256(b"".join(b"%s\0%s" % (n.encode(), c) for n, c in headers.items()))
    folder = jittor_home() / f".cache/jittor/transfg-include-{digest.hexdigest()[:8]}"
    for name, content in headers.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}")
            temporary.write_bytes(content)
            temporary.replace(path)
    # Jittor puts -I for oneDNN first. GCC ignores -I for a folder that is also given as -isystem,
    # and searches it later. It already does so with its own folders, which must keep their order.
    include = onednn_include()
    later = uses_onednn and include.resolve() != SYSTEM_INCLUDE
    return f'-I"{folder}"' + f' -isystem"{include}"' * later
