"""The environment of a run, to explain later why two machines gave different numbers."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import transfg_core
from transfg_core.errors import UserError

LIBRARIES = ("numpy", "pillow", "pydantic", "PyYAML", "grain", "safetensors", "scipy")


def describe_environment(
    device: Mapping[str, Any], command: Sequence[str], data: Mapping[str, Any]
) -> dict[str, Any]:
    """One record for env.json.

    Args:
        device: `Backend.device_info()`.
        command: the program and its arguments.
        data: `Dataset.counts()`: images that are used, and what is left out.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "transfg": transfg_core.__version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "device": dict(device),
        "data": dict(data),
    }


def git_commit() -> str | None:
    """Commit of this source tree, with `-dirty` if files differ; None outside a repository."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        described = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # git is absent or refuses the repository; a run works without a commit
    return described.stdout.strip() or None


def read_starts(path: Path) -> list[dict[str, Any]]:
    """The records of env.json, one per start; none if the file is missing.

    Raises:
        UserError: the file is not a JSON list.
    """
    try:
        starts = json.loads((path / "env.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path / 'env.json'}: expected a JSON list, cannot read the file: {error}; delete it"
        ) from error
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise UserError(
            f"{path / 'env.json'}: expected a JSON list of records, found {starts!r:.60}; delete "
            "the file"
        )
    return starts


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
