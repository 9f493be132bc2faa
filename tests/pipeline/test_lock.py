"""Claims: one holder at a time, named to those who wait; survivors of an ended run are found."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import lock
from pipeline.lock import Claim, claimed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)


def claim(folder: Path, name: str = "workspace") -> Claim:
    return Claim(name, folder / f"{name}.lock", "MELNET_TEST_CLAIM", str(folder / name))


def test_the_second_waits_and_is_told_who_holds_it(tmp_path: Path) -> None:
    said: list[str] = []
    waiting, released, order = threading.Event(), threading.Event(), []

    def log(line: str) -> None:
        said.append(line)
        waiting.set()

    def second() -> None:
        with claimed([claim(tmp_path)], "clever-otter", log):
            order.append("second, released" if released.is_set() else "second, too early")

    with claimed([claim(tmp_path)], "brave-lynx", print):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        released.set()
    thread.join(10)
    assert order == ["second, released"]
    assert len(said) == 1
    assert said[0].startswith("waiting: workspace is held by brave-lynx (process ")


def test_an_error_frees_the_claim(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="off key"), claimed([claim(tmp_path)], "brave-lynx", print):
        raise RuntimeError("off key")
    with claimed([claim(tmp_path)], "clever-otter", pytest.fail):
        pass


def test_two_runs_get_two_different_gpus(tmp_path: Path) -> None:
    choices = [claim(tmp_path, "GPU 0"), claim(tmp_path, "GPU 1")]
    with claimed(choices, "brave-lynx", print) as one, claimed(choices, "clever-otter", pytest.fail) as two:
        assert [one.what, two.what] == ["GPU 0", "GPU 1"]


def test_a_process_that_outlived_its_run_is_named_and_waited_for(tmp_path: Path) -> None:
    mine = claim(tmp_path)
    with claimed([mine], "brave-lynx", print):
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=mine.mark)
    said: list[str] = []

    def log(line: str) -> None:
        said.append(line)
        orphan.kill()
        orphan.wait()

    with claimed([mine], "clever-otter", log):
        assert orphan.returncode is not None
    assert "brave-lynx (process" in said[0]
    assert f"its processes still run: {orphan.pid};" in said[0]
