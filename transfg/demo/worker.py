"""A process that holds the models of one framework and answers one request at a time.

    python -m transfg.demo.worker JOB       # transfg/demo/process.py starts this

The job names the backend, the runs, and the pipe for answers, which survives the restart that
Jittor needs after it has rebuilt itself. The first answer describes the models, or says why one
cannot be loaded: the others answer, and each request for this one tries to load it again. Then each
request is a line of JSON on standard input, with the length of the picture that follows it; each
answer is a line of JSON. Requests need no framework in the server: the two frameworks disturb one
another, Jittor is not thread-safe, and a picture that crashes a decoder ends this process alone.
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

Model = Predictor | UserError  # the error says why it cannot be loaded


def load_run(job: dict[str, Any], number: int) -> Model:
    """A model, warmed up, since the first call compiles operators; or why it cannot be loaded."""
    limit = f"data.max_megapixels={job['megapixels']}"
    try:
        predictor = load(Path(job["runs"][number]), job["backend"], limit)
        answer(predictor, grey_picture(predictor), pictures=True)
    except UserError as error:
        return error
    return predictor


def grey_picture(predictor: Predictor) -> bytes:
    """A PNG that is large enough for the model."""
    side = max(*predictor.model.config.data.crop, 64)
    file = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def reply(predictor: Model, request: dict[str, Any], content: bytes) -> Answer:
    """The answer to one request; what a user can cause has a code and a reason."""
    if isinstance(predictor, UserError):
        return {"error": "model", "detail": str(predictor)}
    try:
        return answer(predictor, content, request["pictures"])
    except Refused as error:
        return {"error": error.code, "detail": error.detail}
    except UserError as error:
        return {"error": "model", "detail": str(error)}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return {"error": "memory", "detail": "the model needs more memory than there is"}


def description(model: Model) -> Answer:
    """What the server learns of a model first."""
    return {"refused": str(model)} if isinstance(model, UserError) else describe(model)


def serve(job: dict[str, Any], requests: BinaryIO, answers: TextIO) -> None:
    """Load the models, then answer requests until there are no more."""

    def send(content: Answer) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    models = [load_run(job, number) for number in range(len(job["runs"]))]
    send({"models": [description(model) for model in models], "process": os.getpid()})
    for line in iter(requests.readline, b""):
        request = json.loads(line)
        content = requests.read(request["length"])
        number = request["run"]
        if isinstance(models[number], UserError):  # it may be there again
            models[number] = load_run(job, number)
        send(reply(models[number], request, content))
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
