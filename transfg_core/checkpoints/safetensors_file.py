"""Read a .safetensors file, bfloat16 included, which safetensors' NumPy side does not know."""

import json

import numpy as np
import safetensors

from transfg_core.backend import Array
from transfg_core.checkpoints.weight_file import Header, WeightFile, damaged, widen_bfloat16
from transfg_core.errors import UserError

# the format's names of types -> ours; https://github.com/huggingface/safetensors
FLOAT_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
STORED = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


class SafetensorsFile(WeightFile):
    """An open .safetensors file."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            # the library checks that the arrays fill the file without gaps and overlaps
            with safetensors.safe_open(path, framework="numpy"):
                pass
            self.file = open(path, "rb")
            length = int.from_bytes(self.file.read(8), "little")
            header = json.loads(self.file.read(length))
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: {damaged('a .safetensors file', error)}") from error
        self.start = 8 + length
        self.strings = header.pop("__metadata__", None) or {}  # null counts as none
        self.entries = header

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def headers(self) -> dict[str, Header]:
        """Dict: key -> header."""
        return {
            key: Header(tuple(entry["shape"]), FLOAT_NAMES.get(entry["dtype"], entry["dtype"]))
            for key, entry in self.entries.items()
        }

    def read(self, key: str) -> Array:
        """One array of floating-point numbers.

        Raises:
            UserError: the file was cut since it was opened.
        """
        entry = self.entries[key]
        begin, end = entry["data_offsets"]
        try:
            self.file.seek(self.start + begin)
            data = self.file.read(end - begin)
            array = np.frombuffer(data, STORED[entry["dtype"]]).reshape(entry["shape"])
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: {key}: {damaged('an array', error)}") from error
        return widen_bfloat16(array) if entry["dtype"] == "BF16" else array
