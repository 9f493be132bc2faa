"""The report page in headless Chromium: it plays, moves, stays on this machine, and everybody can use it."""

import http.server
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def write_report(run, folder):
    from stages.parameters import load_params
    from stages.report import report

    shutil.copytree(run, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report(load_params(folder / "params.yaml"))


@pytest.fixture(scope="module")
def page(finished_run, tmp_path_factory):
    """The folder of a written report."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    write_report(finished_run, folder)
    previous = {
        "evaluate": {"nll": -0.25, "baseline_band_nll": 1.0},
        "generate": {"frechet": 10.0},
        "vocoder": {"test.vocoder.voicing_accuracy": 0.72, "test.griffin-lim.voicing_accuracy": 0.91},
    }
    run = {"commit": "0123456789ab", "changed": 1, "metrics": previous}
    (folder / "report/run.js").write_text(f"window.melnetRun = {json.dumps(run)};\n")
    return folder / "report"


@pytest.fixture(scope="module")
def asked_page(asked_run, tmp_path_factory):
    """The report of a model that is told melody and phonemes."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    write_report(asked_run, folder)
    return folder / "report"


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Root may not use the sandbox, and containers have little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server knows no range requests."""

    def log_message(self, *_):
        pass


def show(driver, address, size="desktop", scheme="light"):
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for log in ("browser", "performance"):
        driver.get_log(log)  # what earlier pages left
    driver.get(address)


def requests(driver):
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def until(driver, condition):
    return WebDriverWait(driver, 10, poll_frequency=0.05).until(lambda _: condition())


def find(driver, selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def cursor(driver):
    """Place of the first cursor in its picture, from 0 to 1."""
    return driver.execute_script(
        """const box = (name) => document.querySelector(name).getBoundingClientRect();
        const cursor = box(".cursor"), picture = box(".mel");
        return (cursor.x + cursor.width / 2 - picture.x) / picture.width"""
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_sample_plays_and_its_cursor_moves(chromium, page, size):
    show(chromium, (page / "index.html").as_uri(), size)
    assert cursor(chromium) == pytest.approx(0, abs=0.01)
    play = find(chromium, ".play")
    play.click()
    until(chromium, lambda: cursor(chromium) > 0.1)
    assert play.get_attribute("aria-label") == "Pause sample-00, vocoder"
    play.click()
    until(chromium, lambda: play.get_attribute("aria-label") == "Play sample-00, vocoder")
    seconds = chromium.execute_script("return document.querySelector('audio').currentTime")
    assert cursor(chromium) == pytest.approx(seconds / (79 * 512 / 24000), abs=0.01)
    assert chromium.get_log("browser") == []
    found = requests(chromium)
    assert any(address.endswith("sample-00-vocoder.wav") for address in found)
    assert not [address for address in found if not address.startswith(("file:", "data:", "blob:"))]
    width = chromium.execute_script("return document.documentElement.scrollWidth")
    assert width <= SIZES[size][0]


@pytest.mark.parametrize("size", SIZES)
def test_the_pitch_lies_over_the_picture_and_lets_a_click_through(chromium, page, size):
    show(chromium, (page / "index.html").as_uri(), size)
    picture = find(chromium, ".mel:has([src='pictures/recording-00.png'])")
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)

    def shown():
        return chromium.execute_script(
            """const box = arguments[0].getBoundingClientRect();
            const svg = arguments[0].querySelector(".pitch"), over = svg.getBoundingClientRect();
            const line = svg.lastElementChild.getBoundingClientRect();
            return {
              apart: ["x", "y", "width", "height"].map((side) => over[side] - box[side]),
              line: [line.width / box.width, line.top >= box.top, line.bottom <= box.bottom],
              stroke: getComputedStyle(svg.lastElementChild).vectorEffect,
              hit: document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)?.type,
            }""",
            picture,
        )

    until(chromium, lambda: shown()["hit"] == "range")  # cards are laid out when they come into view
    found = shown()
    assert found["apart"] == pytest.approx([0, 0, 0, 0], abs=0.5)
    assert found["line"] == [pytest.approx(1, abs=0.1), True, True]
    assert found["stroke"] == "non-scaling-stroke"
    # Without the position's input on top, as before the script runs, the line is still nothing to click on.
    assert chromium.execute_script("return getComputedStyle(document.querySelector('.pitch')).pointerEvents") == "none"


@pytest.mark.parametrize("size", SIZES)
def test_names_of_phonemes_are_seen_where_there_is_room(chromium, asked_page, size):
    show(chromium, (asked_page / "index.html").as_uri(), size)
    for card, expected in {".card": {"a": True, "unusually long": False}, ".score": {"a": True, "<br>": True}}.items():
        strip = find(chromium, f"{card} .phonemes")
        chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", strip)
        seen = chromium.execute_script(
            """const seen = {};
            for (const span of arguments[0].children) {
              const box = span.getBoundingClientRect(), text = span.firstElementChild.getBoundingClientRect();
              if (box.width > 20) seen[span.textContent] = text.top < box.bottom - 1 && text.right <= box.right + 1;
            }
            return seen""",
            strip,
        )
        assert {name: seen[name] for name in expected} == expected
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= SIZES[size][0]


def test_a_score_that_is_wider_than_the_screen_moves_along_as_it_plays(chromium, asked_page):
    show(chromium, (asked_page / "index.html").as_uri(), "phone")
    plot, track = find(chromium, ".score .plot"), find(chromium, ".score .track")
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", track)
    chromium.execute_script("arguments[0].querySelector('audio').currentTime = 4", track)
    track.find_element(By.CSS_SELECTOR, ".play").click()

    def middle():
        return chromium.execute_script(
            """const box = arguments[0].getBoundingClientRect();
            const at = arguments[0].querySelector(".cursor").getBoundingClientRect().x;
            return arguments[0].scrollLeft > 50 && (at - box.x) / box.width""",
            plot,
        )

    until(chromium, lambda: middle() == pytest.approx(0.5, abs=0.1))
    track.find_element(By.CSS_SELECTOR, ".play").click()


def test_only_one_piece_plays_at_a_time(chromium, page):
    show(chromium, (page / "index.html").as_uri())
    first, second = chromium.find_elements(By.CSS_SELECTOR, ".play")[:2]
    first.click()
    until(chromium, lambda: first.get_attribute("aria-label").startswith("Pause"))
    second.click()
    until(chromium, lambda: second.get_attribute("aria-label").startswith("Pause"))
    until(chromium, lambda: first.get_attribute("aria-label").startswith("Play"))


def test_it_can_be_used_with_the_keyboard_alone(chromium, page):
    show(chromium, (page / "index.html").as_uri())
    keys = ActionChains(chromium)
    for _ in range(20):
        keys.send_keys(Keys.TAB).perform()
        if chromium.switch_to.active_element.get_attribute("type") == "range":
            break
    chromium.switch_to.active_element.send_keys(Keys.END)
    until(chromium, lambda: cursor(chromium) > 0.95)
    chromium.switch_to.active_element.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    until(chromium, lambda: 0.01 < cursor(chromium) < 0.1)
    chromium.switch_to.active_element.send_keys(Keys.SPACE)
    until(chromium, lambda: cursor(chromium) > 0.2)
    assert "of 1.7 seconds" in chromium.switch_to.active_element.get_attribute("aria-valuetext")


def test_curves_tell_their_values_and_zoom(chromium, page):
    show(chromium, (page / "index.html").as_uri())
    plot = find(chromium, ".u-over")
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(chromium).move_to_element(plot).perform()
    legend = [value.text for value in chromium.find_elements(By.CSS_SELECTOR, "[data-curves=tier-1] .u-value")]
    assert [float(value) for value in legend] == [2, -0.4, -0.3, 2, 0.001]
    canvas = find(chromium, ".chart canvas")
    picture = chromium.execute_script("return arguments[0].toDataURL()", canvas)
    ActionChains(chromium).move_to_element(plot).click_and_hold().move_by_offset(150, 0).release().perform()
    until(chromium, lambda: chromium.execute_script("return arguments[0].toDataURL()", canvas) != picture)
    find(chromium, "[data-zoom=all]").click()
    ActionChains(chromium).move_to_element(find(chromium, "h1")).perform()
    until(chromium, lambda: chromium.execute_script("return arguments[0].toDataURL()", canvas) == picture)


def test_metrics_stand_beside_those_of_the_last_commit(chromium, page):
    show(chromium, (page / "index.html").as_uri())
    rows = {row.get_attribute("data-name"): row for row in chromium.find_elements(By.CSS_SELECTOR, "tr[data-name]")}
    changes = {name: [cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for name, row in rows.items()}
    assert changes["nll"] == ["−0.5", "−0.25", "−0.25 better"]
    assert changes["frechet"] == ["20", "10", "+10 worse"]
    assert changes["test.vocoder.voicing_accuracy"] == ["0.97", "0.72", "+0.25 better"]
    assert changes["test.griffin-lim.voicing_accuracy"] == ["0.81", "0.91", "−0.1 worse"]
    assert changes["baseline_band_nll"] == ["1", "1", "0"]
    assert changes["val_loss"] == ["−0.3", "", ""]
    assert "0123456789ab, with 1 file changed since" in find(chromium, "#commit").text


def test_without_run_js_it_says_nothing_of_git(chromium, page, tmp_path):
    shutil.copytree(page, tmp_path / "report", ignore=shutil.ignore_patterns("run.js"))
    show(chromium, (tmp_path / "report/index.html").as_uri())
    assert not find(chromium, "#commit").is_displayed()
    assert not find(chromium, "th.before").is_displayed()
    assert find(chromium, ".u-over").is_displayed()
    assert find(chromium, ".play").is_displayed()


def test_a_server_that_sends_whole_files_only_can_still_seek(chromium, page):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=page)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        show(chromium, f"http://127.0.0.1:{server.server_port}/index.html")
        play = find(chromium, ".play")
        play.click()
        until(chromium, lambda: cursor(chromium) > 0.1)
        play.click()
        until(chromium, lambda: play.get_attribute("aria-label").startswith("Play"))
        ActionChains(chromium).move_to_element(find(chromium, ".surface")).click().perform()
        until(chromium, lambda: cursor(chromium) == pytest.approx(0.5, abs=0.05))
        chromium.get("about:blank")
        server.shutdown()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(("size", "scheme"), [("desktop", "dark"), ("phone", "light")])
def test_nothing_stands_in_the_way_of_anybody(chromium, request, told, size, scheme):
    page = request.getfixturevalue("asked_page" if told else "page")
    show(chromium, (page / "index.html").as_uri(), size, scheme)
    for details in chromium.find_elements(By.CSS_SELECTOR, "summary"):
        details.click()
    violations = Axe().run(chromium)["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")] == []
    background = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(part) for part in background.strip("rgb()").split(",")])
    assert (brightness < 64) == (scheme == "dark")
