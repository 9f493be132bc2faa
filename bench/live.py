"""The live page in headless Chromium: its first sound, and its pauses in a minute with one listener and with two.

    python -m bench.live [--model FOLDER] [--seconds 60]

Serves the model of a finished run, models/ by default, and clicks on Play: in one tab, then in two at a time. The first
sound is timed in the page, from the click to the first samples that the audio device took; pauses are counted in its
audio worklet. Needs chromium and chromedriver.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from bench.common import ENVIRONMENT, ROOT, Claim, report

ROUNDS = 5
WAIT_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models")
    parser.add_argument("--seconds", type=float, default=60.0, help="to listen without and with a second listener")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "melnet", "live", "--port", "0", "--no-browser", "--listeners", "2"]
    command += ["--model", str(arguments.model)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = [server.stderr.readline() for _ in range(2)]
        while "Ctrl-C" not in lines[-1] and lines[-1]:
            lines.append(server.stderr.readline())
        print("".join(lines), end="")
        [speed] = re.findall(r"sings ([\d.]+) times", "".join(lines))
        browser = _chromium()
        try:
            address = lines[-1].partition(" ")[0]
            first = [_first_sound(browser, address) for _ in range(ROUNDS)]
            print("seconds to the first sound: " + ", ".join(f"{value:.2f}" for value in first))
            time.sleep(arguments.seconds)
            alone = _longest_pause(browser)
            tabs = [browser.current_window_handle]
            browser.switch_to.new_window("tab")
            second = _first_sound(browser, address)
            tabs.append(browser.current_window_handle)
            time.sleep(arguments.seconds)
            together = []
            for tab in tabs:
                browser.switch_to.window(tab)
                together.append(_longest_pause(browser))
        finally:
            browser.quit()
            server.terminate()
    report(
        Claim.at_most(1, "live page, first sound after the click", first, "s"),
        Claim.at_most(1, "live page, first sound of a second listener", [second], "s"),
        Claim.at_most(0.02, f"live page, longest pause in {arguments.seconds:g} s", [alone], "s"),
        Claim.at_most(0.02, "live page, longest pause of two listeners", [max(together)], "s"),
        Claim.at_least(2, "live page, speed of all streams together against real time", [float(speed)], "×"),
    )


def _chromium() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # As in tests/browser; a tab in the background plays as one in the foreground does.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"):
        options.add_argument(argument)
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))


def _first_sound(browser: webdriver.Chrome, address: str) -> float:
    """Open the page and click on Play; seconds to the first sound."""
    browser.get(address)
    play = browser.find_element(By.ID, "play")
    WebDriverWait(browser, WAIT_SECONDS).until(lambda _: play.is_enabled())
    play.click()
    return WebDriverWait(browser, WAIT_SECONDS, poll_frequency=0.05).until(lambda _: _value(browser, "first"))


def _longest_pause(browser: webdriver.Chrome) -> float:
    time.sleep(0.5)  # the page writes its figures four times a second
    return _value(browser, "dry")


def _value(browser: webdriver.Chrome, name: str) -> float:
    return float(browser.find_element(By.ID, name).get_attribute("value") or 0)


if __name__ == "__main__":
    main()
