"""Curves for TensorBoard; written only if tensorboardX is installed."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 10  # a killed run may lose so much of these files; metrics.jsonl loses nothing

# (kind of record, key in it) -> tag.
TAGS: dict[tuple[str, str], str] = {
    ("train", "loss"): "train/loss",
    ("train", "lr"): "train/lr",
}


class ScalarWriter:
    """Writes event files in `folder`; the first record with a tag opens a file."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """`purge_step` is the first update of a resumed run.

        TensorBoard then drops points from there on in older files.
        """
        self._folder = folder
        self._purge_step = purge_step
        self._writer: Any = None
        self._installed = importlib.util.find_spec("tensorboardX") is not None

    def log(self, record: Mapping[str, Any]) -> None:
        """Write the scalars of one record at its `update`; None values are left out."""
        if not self._installed:
            return
        if record["kind"] == "eval" and record.get("weights") == "best":
            return  # logged at the end, in a curve of last weights
        tags = TAGS | {("eval", "top1"): f"{record.get('split', 'test')}/accuracy"}
        for (kind, key), tag in tags.items():
            if record["kind"] == kind and record.get(key) is not None:
                if self._writer is None:
                    self._writer = _open_writer(self._folder, self._purge_step)
                self._writer.add_scalar(tag, record[key], record["update"])

    def close(self) -> None:
        """Flush and close; a later record opens a new file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _open_writer(folder: Path, purge_step: int | None) -> Any:
    """Open a writer without importing torch.

    tensorboardX imports torch if it is installed, but a Jittor run must not share its process with
    torch. So torch is hidden during the import, unless it is already imported.
    """
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` fail
    try:
        module = importlib.import_module("tensorboardX")
    finally:
        if hide:
            del sys.modules["torch"]
    return module.SummaryWriter(
        logdir=str(folder),
        purge_step=purge_step,
        flush_secs=FLUSH_SECONDS,
        filename_suffix=f".from-{purge_step or 1}",
    )
