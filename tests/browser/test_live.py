"""The live page in headless Chromium: it sings, without a gap, what the model sings, and everybody can use it."""

import time

import numpy as np
import pytest
import soundfile
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

import melnet
from melnet.live.app import Live, speed
from tests.browser.test_page import CHROMIUM, DRIVER, SIZES, find, requests, show
from tests.live_server import serving, watch
from tests.small_model import SINGERS, TOLD, write_model

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
HEARD_SECONDS = 20
FIRST_SECONDS, LONGEST_GAP = 1.0, 0.02
SPEED = 4  # times real time, of this small model: a machine that is slower now has no time for a browser beside it


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return melnet.load(write_model(tmp_path_factory.mktemp("model") / "models", singers=SINGERS))


@pytest.fixture(scope="module")
def live(model):
    live = Live(model, places=1)
    live.warm_up()
    return live


@pytest.fixture(scope="module")
def streams(live):
    return watch(live)


@pytest.fixture(scope="module")
def address(live, streams):
    with serving(live) as address:
        yield f"http://{address}/"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # As in test_page.py; and a microphone that beeps, which asks nobody.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"):
        options.add_argument(argument)
    options.add_argument("--use-fake-device-for-media-stream")
    options.add_argument("--use-fake-ui-for-media-stream")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, live, address):
    """The page, ready to sing; afterwards nobody listens."""
    show(browser, address)
    until(lambda: find(browser, "#play").is_enabled())
    yield browser
    browser.get("about:blank")
    until(lambda: live.listening == 0)


def until(condition, seconds=30):
    return WebDriverWait(None, seconds, poll_frequency=0.02).until(lambda _: condition())


def value(driver, name):
    return float(find(driver, name).get_attribute("value") or 0)


def play(driver):
    find(driver, "#play").click()
    until(lambda: value(driver, "#first") > 0)


def kept(driver, downloads):
    """The WAV file that the page keeps."""
    find(driver, "#keep").click()
    until(lambda: list(downloads.glob("*.wav")))
    [path] = downloads.glob("*.wav")
    audio, rate = soundfile.read(path)
    path.unlink()
    return audio, rate


def test_a_click_sings_what_the_model_sings(page, model, downloads):
    play(page)
    until(lambda: value(page, "#heard") > 3, 120)
    assert float(find(page, "#level").get_attribute("aria-valuenow")) > -60
    audio, rate = kept(page, downloads)
    assert rate == model.sample_rate
    assert len(audio) > 3 * rate
    stream = model.stream(seed=1, temperature=0.9, singer=SINGERS[0])
    expected = np.concatenate([next(stream) for _ in range(-(-len(audio) * 4 // rate))])[: len(audio)]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(audio, expected / max(1, np.abs(expected).max()), atol=2e-4)
    assert page.get_log("browser") == []
    assert not [url for url in requests(page) if not url.startswith((page.current_url, "ws:", "data:", "blob:"))]


def test_it_begins_soon_and_has_no_gap(page, model):
    if (times := speed(model)) < SPEED:
        pytest.skip(f"the machine is busy: it sings {times:.1f} times as fast as real time")
    play(page)
    time.sleep(HEARD_SECONDS)
    if (times := speed(model)) < SPEED:
        pytest.skip(f"the machine became busy: it sings {times:.1f} times as fast as real time")
    assert value(page, "#first") <= FIRST_SECONDS
    assert value(page, "#heard") > HEARD_SECONDS - 1
    assert value(page, "#dry") <= LONGEST_GAP


def test_the_spectrogram_rolls_by_and_stops(page):
    def picture():
        return page.execute_script("return document.querySelector('#mel').toDataURL()")

    black = picture()
    play(page)
    shown = picture()
    assert shown != black
    until(lambda: picture() != shown)
    find(page, "#play").click()
    until(lambda: find(page, "#status").text == "Stopped")
    stopped = picture()
    time.sleep(0.3)
    assert picture() == stopped


def test_settings_change_while_it_sings(page, streams):
    play(page)
    singing = streams[-1]
    find(page, "#temperature").send_keys(Keys.ARROW_LEFT * 4)
    until(lambda: singing.settings.temperature == pytest.approx(0.7))
    find(page, "#components").send_keys(Keys.HOME)
    until(lambda: singing.settings.top_components == 1)
    find(page, "#another").click()  # another song begins
    until(lambda: streams[-1] is not singing and streams[-1].drawn > 1)
    assert streams[-1].settings.temperature == pytest.approx(0.7)


def test_a_recording_is_continued_and_text_is_refused(page, live, streams, tmp_path):
    soundfile.write(tmp_path / "hum.wav", 0.4 * np.sin(np.arange(48000) / 9), 24000)
    (tmp_path / "words.wav").write_text("These are words.")
    play(page)
    without = len(streams)
    find(page, "#file").send_keys(str(tmp_path / "hum.wav"))
    until(lambda: "Continues the last 1.9 s of hum.wav" in find(page, "#upload").text)
    until(lambda: len(streams) > without and streams[-1].drawn)
    assert page.execute_script("return document.querySelector('#refused').hidden")
    find(page, "#file").send_keys(str(tmp_path / "words.wav"))
    until(lambda: find(page, "#refused").is_displayed())
    assert find(page, "#refused").text == "words.wav: not audio in any format that can be read"
    assert find(page, "#upload").text == ""


@pytest.fixture
def told(tmp_path):
    """A model that is told what is sung, and the address of its page."""
    model = melnet.load(write_model(tmp_path / "told", told=TOLD))
    with serving(Live(model, places=1)) as address:
        yield model, f"http://{address}/"


def test_a_score_is_sung_and_text_is_refused(page, told, tmp_path, downloads):
    assert not find(page, "#score").is_displayed()  # this model is told nothing
    model, address = told
    (tmp_path / "song.txt").write_text("A3 2 t a\nC4 2 a")
    (tmp_path / "words.txt").write_text("These are words.")
    page.get(address)
    until(lambda: find(page, "#play").is_enabled())
    find(page, "#score-file").send_keys(str(tmp_path / "words.txt"))
    until(lambda: find(page, "#score-refused").is_displayed())
    assert find(page, "#score-refused").text.startswith("words.txt: line 1: expected a number of beats")
    assert not find(page, "#sing").is_displayed()
    find(page, "#score-file").send_keys(str(tmp_path / "song.txt"))
    until(lambda: find(page, "#score-upload").text == "Sings song.txt, 2.3 s, and goes on.", 60)
    find(page, "#transpose").send_keys(Keys.CONTROL, "a", Keys.NULL, "20", Keys.TAB)
    until(lambda: "Warning: the score goes from F5" in find(page, "#score-upload").text, 60)
    find(page, "#sing").click()
    until(lambda: value(page, "#heard") > 3, 120)
    audio, rate = kept(page, downloads)
    find(page, "#score-forget").click()
    until(lambda: find(page, "#score-upload").text == "")
    page.get("about:blank")
    with pytest.warns(UserWarning, match="beyond the range"):
        score = model.read_score(tmp_path / "song.txt", transpose=20)
    stream = model.stream(seed=1, temperature=0.9, score=score)
    expected = np.concatenate([next(stream) for _ in range(-(-len(audio) * 4 // rate))])[: len(audio)]
    np.testing.assert_allclose(audio, expected / max(1, np.abs(expected).max()), atol=2e-4)


def test_the_microphone_is_continued(page):
    find(page, "#record").click()
    until(lambda: find(page, "#recorded").text in ("2 s", "3 s"))
    find(page, "#record").click()
    until(lambda: find(page, "#upload").text.endswith("s of the recording."), 60)
    play(page)
    find(page, "#forget").click()
    until(lambda: find(page, "#upload").text == "")


def test_a_closed_tab_ends_the_work_and_the_one_too_many_is_told(page, live, streams, address):
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    page.get(address)
    until(lambda: find(page, "#play").is_enabled())
    play(page)
    singing, second = streams[-1], page.current_window_handle
    page.switch_to.window(first)
    find(page, "#play").click()
    until(lambda: find(page, "#problem").is_displayed())
    assert "Somebody else is listening" in find(page, "#problem").text
    assert find(page, "#play").get_attribute("aria-label") == "Play"
    page.switch_to.window(second)
    page.close()
    page.switch_to.window(first)
    until(lambda: live.listening == 0, 1)
    drawn = singing.drawn
    time.sleep(1)
    assert singing.drawn <= drawn + 1  # the chunk that was drawn when the tab was closed


def test_it_can_be_used_with_the_keyboard_alone(page):
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.get_attribute("id") == "play"
    page.switch_to.active_element.send_keys(Keys.SPACE)
    until(lambda: value(page, "#first") > 0)
    reached = []
    for _ in range(8):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.switch_to.active_element.get_attribute("id"))
    assert reached == ["keep", "temperature", "components", "singer", "seed", "another", "file", "record"]
    find(page, "#play").send_keys(Keys.ENTER)
    until(lambda: find(page, "#play").get_attribute("aria-label") == "Play")


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "dark"), ("phone", "light")])
def test_nothing_stands_in_the_way_of_anybody(page, address, size, scheme):
    show(page, address, size, scheme)
    until(lambda: find(page, "#play").is_enabled())
    play(page)
    hidden = "'.problem, #forget, #score, #score [hidden]'"
    page.execute_script(f"document.querySelectorAll({hidden}).forEach((hidden) => (hidden.hidden = false))")
    violations = Axe().run(page)["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")] == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= SIZES[size][0]
