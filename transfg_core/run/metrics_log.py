"""The records of a run as text: JSON lines that stay valid, and a CSV view of them.

A record is a flat dictionary with `kind` (train, eval or event) and `update`, the number of updates
done when it was logged. `top1`, `top5`, `accuracy` and `part_hit` are fractions in [0, 1]. An
evaluation has `split` (test or validation), `weights` (last or best) and `weights_update`, the
update after which these weights were current. `tta` names a test-time augmentation, if there was
one. `averaged` says whether it used the averages of `optim.ema`. That of `transfg knn` has `method`
(knn), `k`, `temperature`, and for each number of neighbours K `top1_K` and `top1_majority_K`.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.errors import UserError
from transfg_core.metrics import log_sum_exp

Record = dict[str, Any]

PREDICTIONS = ("image", "label", "predicted", "correct", "probability")

# Columns of summary.csv: first timm's names and units (accuracies in percent), then ours.
SUMMARY = (
    *("epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr", "step"),
    *("split", "weights"),
)


def clean(value: Any) -> Any:
    """Convert a value for JSON: NumPy values to Python's, non-finite numbers to None."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return clean(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | None) else str(value)


def json_line(record: Mapping[str, Any]) -> str:
    """One record as one line of metrics.jsonl."""
    return json.dumps(clean(record), allow_nan=False) + "\n"


def read_records(path: Path) -> list[Record]:
    """The records of a metrics.jsonl (none if it is missing), in order.

    A killed run may leave an incomplete last line, which is skipped.

    Raises:
        UserError: the file cannot be read, or a complete line is not a record.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot read the metrics: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            sound = record["kind"] in ("train", "eval", "event") and record["update"] >= 0
        except (ValueError, TypeError, KeyError):
            sound = False
        if not sound:
            raise UserError(
                f"{path}, line {number}: expected a JSON record with kind and update, "
                f"found {line[:60]!r}; delete this line to continue without it"
            )
        records.append(record)
    return records


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV with Unix line ends; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class Summary:
    """Turns records into rows of summary.csv, one per evaluation."""

    def __init__(self) -> None:
        self._recent: list[Record] = []  # training records since the last evaluation

    def row(self, record: Record) -> tuple[Any, ...] | None:
        """Take the next record; return a row if it is an evaluation, else None.

        The row has the mean logged training loss since the previous evaluation.
        """
        if record["kind"] == "train":
            self._recent.append(record)
        if record["kind"] != "eval":
            return None
        losses = [entry["loss"] for entry in self._recent if entry.get("loss") is not None]
        newest = self._recent[-1] if self._recent else {}
        self._recent = []
        values = {
            "epoch": newest.get("epoch"),
            "train_loss": sum(losses) / len(losses) if losses else None,
            "eval_loss": record.get("loss"),
            "eval_top1": _percent(record.get("top1")),
            "eval_top5": _percent(record.get("top5")),
            "lr": newest.get("lr"),
            "step": record.get("weights_update", record["update"]),
            "split": record.get("split", "test"),
            "weights": record.get("weights", "last"),
        }
        return tuple(values[name] for name in SUMMARY)


def prediction_rows(
    images: Sequence[str], labels: NDArray[Any], logits: NDArray[Any]
) -> list[Sequence[Any]]:
    """Rows of predictions.csv, the header first.

    Args:
        images: B identifiers that name the same picture in every run.
        labels: (B,) in [0, C).
        logits: (B, C); the prediction is the first largest logit, with its softmax probability.
    """
    predicted = logits.argmax(axis=1)
    probability = np.exp(logits.max(axis=1).astype(np.float64) - log_sum_exp(logits))
    columns = zip(images, labels, predicted, probability, strict=True)
    rows = [(name, y, guess, int(y == guess), f"{p:.6f}") for name, y, guess, p in columns]
    return [PREDICTIONS, *rows]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * fraction, 6)
