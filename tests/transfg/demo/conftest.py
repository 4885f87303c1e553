"""A demo with two small untrained models, in processes of its own; frameworks never get in here."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from browsing import CHROMIUM, LAPTOP

from tools.demo_load.running import Demo
from transfg_core.backend import BACKENDS
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.loading import build_config

# names that must reach the page as they are: of HTML, of gradio's templates, of Chinese, and long
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "${alert(2)} {{value}} `x`",
    "\"quoted\" & 'more'",
    "红嘴蓝鹊",
    "a_very_long_name_of_a_class_" * 4 + "without_a_space",
    "plain",
)
TREE = {
    "run": {"name": "trial"},
    "data": {"name": "toy", "crop": 32, "resize": 36},
    "model": {"size": "tiny", "depth": 3, "width": 24, "heads": 2, "mlp": 32, "patch": 8},
    "optim": {"warmup": 1},
    "train": {"steps": 4, "batch_size": 8, "eval_batch_size": 8},
}


def write_checkpoint(
    path: Path, seed: int = 0, classes: tuple[str, ...] = HOSTILE, **model
) -> Path:
    """A checkpoint as training writes it, with initial values."""
    tree = TREE | {"run": TREE["run"] | {"seed": seed}}
    tree |= {"model": TREE["model"] | {"classes": len(classes)} | model}
    config = build_config(tree, "test")
    params = {f"param/{name}": array for name, array in build_params(config)[0].items()}
    params["optim/updates"] = np.array(4)
    metadata = {
        "backend": "torch",
        "config": config.model_dump(mode="json"),
        "position": {"update": 4, "evaluated": 4, "best_top1": 0.5, "best_update": 4},
        "dataset": {"name": "toy", "classes": list(classes), "train_images": 8},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, params, metadata)
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Two models: one that selects patches, one that does not. Name on the page -> file."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "parts.safetensors": write_checkpoint(folder / "parts.safetensors"),
        "plain.safetensors": write_checkpoint(folder / "plain.safetensors", 1, placement="none"),
    }


@pytest.fixture(scope="session")
def demo(checkpoints):
    """The demo of both models in PyTorch."""
    needs("gradio", "torch")
    names = ("--public-name", "a.example", "--public-name", "demo.example")
    running = Demo(*map(str, checkpoints.values()), "--time-limit", "30", *names)
    yield running
    assert running.stop() == 0, "a stopped demo ends with exit code 0"


def needs(*modules: str) -> None:
    """Skip without these modules."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")


def installed_backends() -> list[str]:
    return [name for name in BACKENDS if importlib.util.find_spec(name)]


# Chromium's own moving picture in place of a camera, and no question whether it is allowed
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser():
    needs("gradio", "playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-dev-shm-usage", *CAMERA],
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser, demo):
    """Open a page; at the end, nothing was asked of others and the console has no error."""
    contexts, asked, complaints = [], [], []

    def opened(path="/", viewport=LAPTOP, address=demo.address, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(address + path)
        page.wait_for_selector(".tf-file", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    own = re.compile(r"(http://127\.0\.0\.1:\d+/|data:|blob:)")
    assert [url for url in asked if not own.match(url)] == []
    assert complaints == []
