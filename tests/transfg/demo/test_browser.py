"""The page in a headless Chromium: what a reader sees at two widths, in both languages."""

import numpy as np
import pytest
from browsing import LAPTOP, PHONE, no_sideways_scroll, orange, screenshot, upload
from conftest import HOSTILE, installed_backends, write_checkpoint
from PIL import Image

from tools.demo_load.pictures import bird, encoded
from tools.demo_load.running import Demo


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


CAMERAS = """(() => {
    window.tracks = [];
    const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media);
    media.getUserMedia = async (wish) => {
        const stream = await ask(wish);
        window.tracks.push(...stream.getTracks());
        return stream;
    };
})()"""
LIVE = "tracks.filter(track => track.readyState === 'live').length"


@pytest.mark.parametrize("leave", [".tf-stop", ".tf-example"])
def test_no_camera_stays_on(visit, leave):
    """Not even after two quick clicks on "Take a photo"."""
    page = visit()
    page.evaluate(CAMERAS)
    page.evaluate("for (const _ of 'ab') document.querySelector('.tf-camera').click()")
    page.wait_for_function("tracks.length === 2")
    page.wait_for_selector(".tf-live")
    assert page.evaluate(LIVE) == 1 and not page.locator(".tf-camera").is_visible()
    page.click(leave)
    page.wait_for_function(f"{LIVE} === 0")
    assert page.locator(".tf-camera").is_visible()


def test_a_photo_that_the_browser_cannot_make_is_said(visit):
    page = visit()
    page.evaluate("void (HTMLCanvasElement.prototype.toBlob = (use) => use(null))")
    page.click(".tf-camera")
    page.wait_for_function("document.querySelector('.tf-live video').videoWidth > 0")
    page.click(".tf-shoot")
    page.wait_for_selector(".tf-lost")
    assert "could not read" in page.inner_text(".tf-lost")


def test_hints_explain_words(visit):
    page = visit(viewport=PHONE)
    page.click(".tf-picker .tf-hint")
    hint = page.locator(".tf-pop:popover-open")
    assert "compare" in hint.inner_text()
    box = hint.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


@pytest.mark.parametrize("size", [(2, 900), (900, 2)])
def test_a_very_thin_picture_can_be_seen(visit, size):
    page = visit()
    upload(page, encoded(Image.new("RGB", size, (200, 60, 60)), "PNG"))
    page.wait_for_selector(".tf-photo")
    for selector in (".tf-photo", ".tf-preview"):
        box = page.locator(selector).first.bounding_box()
        assert min(box["width"], box["height"]) >= 24
        assert max(box["width"], box["height"]) <= LAPTOP["height"]


def test_a_reader_who_hears_the_page_is_told_the_answer(visit):
    page = visit()
    page.click(".tf-example")
    page.wait_for_function("document.querySelector('.tf-said').textContent.includes('%')")
    assert page.inner_text(".tf-said").count("(PyTorch)") == 2
    names = page.locator(".tf-hint").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert {"Models", "Map", "Time", "Selected patches"} <= {name.split(":")[0] for name in names}


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
        assert (
            "PyTorch and Jittor agree: same class; same probabilities; same patches;"
            in page.inner_text(".tf-note")
        )
        assert page.locator(".tf-badge").all_text_contents() == ["PyTorch", "Jittor"]
        page.click("label.tf-pill:has(input[value=jittor])")
        page.wait_for_selector(".tf-panels[data-count='1']")
        assert page.locator(".tf-badge").all_text_contents() == ["Jittor"]
    finally:
        assert demo.stop() == 0
