"""The page in a headless Chromium when the server is slow, full or gone."""

import json
import os
import signal
import time
import urllib.request
from contextlib import contextmanager

import pytest
from browsing import LAPTOP, PHONE, STILL
from conftest import write_checkpoint

from tools.demo_load.running import Demo
from transfg.demo.limits import WAITING

SLOW = 30_000  # milliseconds
PICKED = """() => {
    const asked = document.querySelector('.tf-picked').dataset.number;
    return [asked, document.querySelector('[data-run]')?.dataset.run ?? null,
            document.querySelector('.tf-photo img')?.src ?? null];
}"""
# the questions for the server's health follow one another 20 times as fast
FAST_WATCH = """(() => {
    const later = setTimeout;
    window.setTimeout = (what, ms, ...rest) => later(what, ms === 4000 ? 200 : ms, ...rest);
})()"""


@pytest.fixture
def page(demo, browser):
    """A page of the demo; what it says on the console does not count."""
    page = browser.new_page(viewport=LAPTOP)
    page.add_init_script(FAST_WATCH)
    page.goto(demo.address)
    page.wait_for_selector(".tf-file", state="attached")
    yield page
    page.close()


@contextmanager
def stopped_worker(demo):
    """The worker stands still inside of this block."""
    process = demo.health()["workers"]["torch"]["process"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def answer_of(page, number):
    """The photograph of the answer to an example."""
    page.click(f".tf-example >> nth={number}")
    page.wait_for_selector(".tf-photo img", state="attached")
    page.wait_for_function(STILL)
    return page.evaluate(PICKED)[2]


def wait_for_run(page, number):
    page.wait_for_function(f"document.querySelector('[data-run]')?.dataset.run === '{number}'")
    page.wait_for_function(STILL)


def no_health(page):
    """The page believes that the server is gone."""
    page.route("**/health", lambda route: route.abort())


def test_a_late_answer_never_stands_beside_another_picture(demo, page):
    photos = [answer_of(page, number) for number in (0, 1)]  # runs 1 and 2
    assert photos[0] != photos[1]
    with stopped_worker(demo):
        no_health(page)
        page.click(".tf-example >> nth=0")
        page.wait_for_selector(".tf-lost", timeout=SLOW)
        page.unroute("**/health")
        page.click(".tf-example >> nth=1")
        assert page.evaluate(STILL) is False
    wait_for_run(page, 4)
    assert page.evaluate(PICKED) == ["1", "4", photos[1]]
    assert page.locator(".tf-lost").count() == 0 and page.locator(".tf-photo").first.is_visible()


def test_an_answer_after_all_is_shown(demo, page):
    """One picture, whose answer comes after the page gave it up."""
    photo = answer_of(page, 1)
    with stopped_worker(demo):
        no_health(page)
        page.click(".tf-example >> nth=1")
        page.wait_for_selector(".tf-lost", timeout=SLOW)
        assert not page.locator(".tf-photo").first.is_visible()
    wait_for_run(page, 2)
    page.wait_for_selector(".tf-lost", state="detached")
    assert page.locator(".tf-photo").first.is_visible()
    assert page.evaluate(PICKED) == ["1", "2", photo]


@pytest.mark.parametrize("refusal", ["failures", "busy"])
def test_one_bad_minute_is_no_lost_server(demo, page, refusal):
    """Two failures in a row, or any number of 503, do not end the request."""
    seen = []

    def refuse(route):
        seen.append(1)
        if refusal == "busy":
            route.fulfill(status=503)
        elif len(seen) % 3:
            route.abort()
        else:
            route.continue_()

    with stopped_worker(demo):
        page.route("**/health", refuse)
        page.click(".tf-example >> nth=0")
        for _ in range(SLOW // 100):
            page.wait_for_timeout(100)
            if len(seen) >= 7:
                break
        assert len(seen) >= 7
        assert page.evaluate(STILL) is False and page.locator(".tf-lost").count() == 0
        page.unroute("**/health")
    wait_for_run(page, 1)


def fill_the_queue(demo):
    """Requests of a program: one for the worker, and all that may wait."""
    body = json.dumps({"data": ["example:0", None, None, False]}).encode()
    head = {"content-type": "application/json"}
    for _ in range(1 + WAITING):
        request = urllib.request.Request(f"{demo.address}/gradio_api/call/predict", body, head)
        urllib.request.urlopen(request, timeout=20).close()
        time.sleep(0.1)  # the first one leaves the queue


def test_a_full_queue_is_said_in_the_language_of_the_page(demo, page):
    with stopped_worker(demo):
        fill_the_queue(demo)
        page.click(".tf-example >> nth=0")
        page.wait_for_selector(".tf-lost")
        assert f"{WAITING} others are waiting" in page.inner_text(".tf-lost")
        assert not page.get_by_text("Queue is full").is_visible()
        page.goto(f"{demo.address}/zh")
        page.click(".tf-example >> nth=0")
        page.wait_for_selector(".tf-lost")
        assert f"已有 {WAITING} 个请求在排队" in page.inner_text(".tf-lost")
    for _ in range(100):  # until the queue has room
        page.click(".tf-example >> nth=1")
        page.wait_for_function(STILL)
        if page.locator("[data-run]").count():
            break
    assert page.locator(".tf-bars").first.is_visible() and page.locator(".tf-lost").count() == 0


def test_a_server_that_stopped_is_said(browser, tmp_path):
    demo = Demo(str(write_checkpoint(tmp_path / "model.safetensors")))
    try:
        page = browser.new_page(viewport=PHONE)
        page.add_init_script(FAST_WATCH)
        page.goto(demo.address)
        answer_of(page, 0)
    finally:
        assert demo.stop() == 0
    page.click(".tf-example >> nth=1")
    page.wait_for_selector(".tf-lost", timeout=SLOW)
    assert "did not answer" in page.inner_text(".tf-lost")
    assert not page.locator(".tf-bars").first.is_visible(), "no old answer for a new picture"
    page.close()
