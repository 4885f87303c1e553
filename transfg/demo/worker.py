"""A process that holds the models of one framework and answers one request at a time.

    python -m transfg.demo.worker JOB       # transfg/demo/process.py starts this

The job names the backend, the runs, and the pipe for answers, which survives the restart that
Jittor needs after it has rebuilt itself. The first answer describes the models, or says why one
cannot be loaded. Then each request is a line of JSON on standard input, with the length of the
picture that follows it; each answer is a line of JSON. Requests need no framework in the server:
the two frameworks disturb one another, Jittor is not thread-safe, and a picture that crashes a
decoder ends this process alone.
"""

import gc
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from PIL import Image

from transfg.demo.answer import Answer, Refused, answer, describe
from transfg_core.errors import UserError, is_out_of_memory
from transfg_core.inference.predictor import Predictor, load


def load_runs(job: dict[str, Any]) -> list[Predictor]:
    """All models of the job, each warmed up: the first call compiles operators.

    Raises:
        UserError: a run cannot be loaded.
    """
    limit = f"data.max_megapixels={job['megapixels']}"
    predictors = [load(Path(run), job["backend"], limit) for run in job["runs"]]
    for predictor in predictors:
        answer(predictor, grey_picture(predictor), pictures=True)
    return predictors


def grey_picture(predictor: Predictor) -> bytes:
    """A PNG that is large enough for the model."""
    side = max(*predictor.model.config.data.crop, 64)
    file = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def reply(predictors: list[Predictor], request: dict[str, Any], content: bytes) -> Answer:
    """The answer to one request; what a user can cause has a code and a reason."""
    try:
        return answer(predictors[request["run"]], content, request["pictures"])
    except Refused as error:
        return {"error": error.code, "detail": error.detail}
    except UserError as error:
        return {"error": "model", "detail": str(error)}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return {"error": "memory", "detail": "the model needs more memory than there is"}


def serve(job: dict[str, Any], requests: BinaryIO, answers: TextIO) -> None:
    """Load the models, then answer requests until there are no more."""

    def send(content: Answer) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        predictors = load_runs(job)
    except UserError as error:
        send({"refused": str(error)})
        return
    send({"models": [describe(predictor) for predictor in predictors], "process": os.getpid()})
    for line in iter(requests.readline, b""):
        request = json.loads(line)
        content = requests.read(request["length"])
        send(reply(predictors, request, content))
        del content
        gc.collect()


def main() -> None:
    """Run the job."""
    job = json.loads(sys.argv[1])
    with open(job["answers"], "w", encoding="utf-8") as answers:
        serve(job, sys.stdin.buffer, answers)
    sys.stderr.flush()
    os._exit(0)  # a framework's own end takes seconds, and has nothing to save


if __name__ == "__main__":
    main()
