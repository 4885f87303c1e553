"""Screenshots of `transfg demo` for the documentation, of toy birds alone.

python -m tools.demo_pictures RUN OTHER_RUN [--out docs/images] [--browser /usr/bin/chromium]

Writes demo-laptop.jpg (two models on one picture) and demo-phone.jpg (one of them, in Chinese).
"""

import argparse
import io
from pathlib import Path
from typing import Any

from PIL import Image

from tools.demo_load.running import Demo

LAPTOP, PHONE = {"width": 1280, "height": 880}, {"width": 390, "height": 844}
EXAMPLE = 2  # of those on the page
QUALITY = 82
STILL = "!document.documentElement.classList.contains('tf-busy')"


def visit(browser: Any, address: str, viewport: dict[str, int], scale: float) -> Any:
    """A page with the answer to an example."""
    page = browser.new_page(viewport=viewport, device_scale_factor=scale)
    page.goto(address)
    page.wait_for_selector(".tf-example")
    page.click(f".tf-example >> nth={EXAMPLE}")
    page.wait_for_selector(".tf-bars")
    page.wait_for_function(STILL)
    return page


def save(page: Any, path: Path, whole: bool = False) -> None:
    """What the window shows, or the whole page, as a small JPEG."""
    page.wait_for_timeout(1000)  # fonts, and the scroll to the answer
    image = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    image.save(path, quality=QUALITY, optimize=True, progressive=True)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Start a demo and take both pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs=2)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--browser", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    demo = Demo(*options.runs)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.browser, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = visit(browser, demo.address, LAPTOP, 1)
        save(page, options.out / "demo-laptop.jpg", whole=True)
        page = visit(browser, f"{demo.address}/zh", PHONE, 1.5)
        page.click("label.tf-pill:has(input[name=models]) >> nth=1")  # leave one model
        page.wait_for_selector(".tf-panels[data-count='1']")
        page.wait_for_timeout(1500)  # the page itself scrolls to the answer
        page.evaluate(
            "scrollBy(0, document.querySelector('.tf-panels').getBoundingClientRect().top - 14)"
        )
        save(page, options.out / "demo-phone.jpg")
        browser.close()
    demo.stop()


if __name__ == "__main__":
    main()
