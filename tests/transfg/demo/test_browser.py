"""The page in a headless Chromium: what a reader sees at two widths, in both languages."""

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import HOSTILE, installed_backends, write_checkpoint
from PIL import Image

from tools.demo_load.pictures import bird, encoded
from tools.demo_load.running import Demo

CHROMIUM = Path("/usr/bin/chromium")
LAPTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
# Chromium's own moving picture in place of a camera, and no question whether it is allowed
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
ORANGE = np.array((255, 138, 0))  # of the frames
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)
for module in ("gradio", "playwright"):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
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


def upload(page, content, name="bird.png"):
    page.set_input_files(".tf-file", {"name": name, "mimeType": "image/png", "buffer": content})


def screenshot(page, selector):
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())))


def orange(pixels):
    """How many pixels have the colour of a frame."""
    return int((np.abs(pixels[..., :3].astype(int) - ORANGE).max(axis=-1) < 30).sum())


def no_sideways_scroll(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize(("path", "words"), [("/", "Selected patches"), ("/zh", "选中的图块")])
def test_a_picture_is_answered(visit, viewport, path, words):
    page = visit(path, viewport)
    assert no_sideways_scroll(page)
    grey = Image.new("RGB", (320, 240), (128, 128, 128))
    upload(page, encoded(grey, "PNG"))
    page.wait_for_selector(".tf-frame", state="attached")
    page.wait_for_function("!document.documentElement.classList.contains('tf-busy')")
    assert words in page.inner_text(".tf-result")
    assert page.locator(".tf-card .tf-bars").count() == 2  # both models
    assert page.locator(".tf-bars >> nth=0").locator("li").count() == 5
    page.locator(".tf-photo").first.scroll_into_view_if_needed()
    framed = screenshot(page, ".tf-photo")
    assert orange(framed) > 100, "the frames are in the picture"
    page.evaluate("document.querySelectorAll('.tf-frame').forEach(frame => frame.remove())")
    assert orange(screenshot(page, ".tf-photo")) < orange(framed) / 10
    assert no_sideways_scroll(page)


def test_names_of_classes_are_shown_as_they_are(visit):
    page = visit(viewport=PHONE)
    upload(page, encoded(bird(2), "PNG"))
    page.wait_for_selector(".tf-bars")
    shown = page.locator(".tf-class").all_text_contents()
    assert len(shown) == 10 and set(shown) <= set(HOSTILE) and len(set(shown)) >= 5
    assert page.locator(".tf-result img[src=x]").count() == 0


def test_the_slider_and_the_choice_of_maps_need_no_server(visit):
    page = visit()
    page.click(".tf-example")
    page.wait_for_selector(".tf-map", state="attached")
    page.wait_for_function("!document.documentElement.classList.contains('tf-busy')")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    strengths = []
    for value in ("0", "100"):
        page.locator(".tf-opacity").evaluate(
            "(slider, value) => { slider.value = value;"
            " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
            value,
        )
        strengths.append(screenshot(page, ".tf-pictures figure:nth-child(2) .tf-photo"))
    plain = screenshot(page, ".tf-pictures figure:nth-child(2) .tf-photo")
    assert (strengths[1] == plain).all() and np.abs(strengths[0].astype(int) - plain).mean() > 20
    page.click("label.tf-pill:has(input[value=saliency])")
    other = screenshot(page, ".tf-pictures figure:nth-child(2) .tf-photo")
    assert np.abs(other.astype(int) - plain).mean() > 2
    assert asked == []


def test_an_error_is_said_kindly_and_the_next_picture_works(visit):
    page = visit("/zh")
    upload(page, b"no picture", "broken.jpg")
    page.wait_for_selector(".tf-error")
    assert "无法使用这张图片" in page.inner_text(".tf-error")
    assert no_sideways_scroll(page)
    upload(page, encoded(bird(3), "PNG"))
    page.wait_for_selector(".tf-bars")
    assert page.locator(".tf-error").count() == 0
    upload(page, b"", "empty.png")
    page.wait_for_selector(".tf-error")


HAND_OVER = """([name, bytes]) => {
    const data = new DataTransfer();
    const content = new Uint8Array(bytes);  // of a number: so many zeros
    data.items.add(new File([content], "bird.png", {type: "image/png"}));
    const event = name === "paste"
        ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
        : new DragEvent("drop", {dataTransfer: data, bubbles: true});
    document.querySelector(".tf-drop").dispatchEvent(event);
}"""


def test_a_large_file_is_refused_without_sending_it(visit):
    page = visit()
    sent = []
    page.on("request", lambda request: sent.append(len(request.post_data or "")))
    page.evaluate(HAND_OVER, ["drop", 20_000_001])
    page.wait_for_selector(".tf-error")
    assert "20 MB" in page.inner_text(".tf-error") and max(sent) < 10_000


def test_pasting_and_dropping(visit):
    page = visit()
    for name in ("paste", "drop"):
        page.evaluate(HAND_OVER, [name, list(encoded(bird(4), "PNG"))])
        page.wait_for_selector(".tf-bars")
        page.reload()
        page.wait_for_selector(".tf-file", state="attached")


def test_taking_a_photo(visit):
    page = visit(viewport=PHONE)
    page.click(".tf-camera")
    page.wait_for_function("document.querySelector('.tf-live video').videoWidth > 0")
    page.click(".tf-shoot")
    page.wait_for_selector(".tf-bars")
    assert not page.locator(".tf-live").is_visible(), "the camera is off"
    photo = screenshot(page, ".tf-photo")
    assert photo.std() > 10, "the picture of the camera, which is not of one colour"


def test_hints_explain_words(visit):
    page = visit(viewport=PHONE)
    page.click(".tf-picker .tf-hint")
    hint = page.locator(".tf-pop:popover-open")
    assert "compare" in hint.inner_text()
    box = hint.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_one_model_or_two(visit):
    page = visit()
    page.click(".tf-example")
    page.wait_for_selector(".tf-panels[data-count='2']")
    page.click("label.tf-pill:has(input[name=models][value^=plain])")
    page.wait_for_selector(".tf-panels[data-count='1']")
    page.click("label.tf-pill:has(input[name=models][value^=parts])")  # the last one stays
    page.wait_for_function("!document.documentElement.classList.contains('tf-busy')")
    assert page.locator("input[name=models]:checked").count() == 1


def test_the_language_follows_the_browser_and_can_be_changed(visit):
    page = visit(locale="zh-CN")
    assert page.url.endswith("/zh") and page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click(".tf-language")
    page.wait_for_url("**/?lang=en")
    page.wait_for_selector(".tf-file", state="attached")
    assert "What does the model see?" in page.inner_text("h1")


def test_switching_the_backend(visit, tmp_path):
    if len(installed_backends()) < 2:
        pytest.skip("needs both torch and jittor")
    demo = Demo(str(write_checkpoint(tmp_path / "model.safetensors")), "--backend", "both")
    try:
        page = visit(address=demo.address)
        page.click(".tf-example")
        page.wait_for_selector(".tf-note.tf-good")
        assert "PyTorch and Jittor agree: same class; same patches;" in page.inner_text(".tf-note")
        assert page.locator(".tf-badge").all_text_contents() == ["PyTorch", "Jittor"]
        page.click("label.tf-pill:has(input[value=jittor])")
        page.wait_for_selector(".tf-panels[data-count='1']")
        assert page.locator(".tf-badge").all_text_contents() == ["Jittor"]
    finally:
        assert demo.stop() == 0


def test_a_server_that_stopped_is_said(browser, tmp_path):
    demo = Demo(str(write_checkpoint(tmp_path / "model.safetensors")))
    try:
        page = browser.new_page(viewport=PHONE)
        page.goto(demo.address)
        page.wait_for_selector(".tf-file", state="attached")
        page.click(".tf-example")
        page.wait_for_selector(".tf-bars")
    finally:
        assert demo.stop() == 0
    page.click(".tf-example >> nth=1")
    page.wait_for_selector(".tf-lost", timeout=20_000)
    assert "did not answer" in page.inner_text(".tf-lost")
    assert not page.locator(".tf-bars").first.is_visible(), "no old answer for a new picture"
    page.close()
