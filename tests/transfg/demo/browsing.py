"""What the tests of the page in a browser share."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")
LAPTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
ORANGE = np.array((255, 138, 0))  # of the frames
STILL = "!document.documentElement.classList.contains('tf-busy')"


def upload(page, content, name="bird.png"):
    page.set_input_files(".tf-file", {"name": name, "mimeType": "image/png", "buffer": content})


def screenshot(page, selector):
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())))


def orange(pixels):
    """How many pixels have the colour of a frame."""
    return int((np.abs(pixels[..., :3].astype(int) - ORANGE).max(axis=-1) < 30).sum())


def no_sideways_scroll(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
