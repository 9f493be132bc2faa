"""Locks: one holder at a time, whose name is logged by those who wait; survivors of an ended run are found."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import lock
from pipeline.lock import Resource, lock_any


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)


def resource(folder: Path, name: str = "workspace") -> Resource:
    return Resource(name, folder / f"{name}.lock", "MELNET_TEST_LOCK", str(folder / name))


def test_the_second_waits_and_logs_who_holds_the_lock(tmp_path: Path) -> None:
    logged: list[str] = []
    waiting, released, order = threading.Event(), threading.Event(), []

    def log(line: str) -> None:
        logged.append(line)
        waiting.set()

    def second() -> None:
        with lock_any([resource(tmp_path)], "clever-otter", log):
            order.append("second, released" if released.is_set() else "second, too early")

    with lock_any([resource(tmp_path)], "brave-lynx", print):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        released.set()
    thread.join(10)
    assert order == ["second, released"]
    assert len(logged) == 1
    assert logged[0].startswith("waiting: workspace is held by brave-lynx (process ")


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="off key"), lock_any([resource(tmp_path)], "brave-lynx", print):
        raise RuntimeError("off key")
    with lock_any([resource(tmp_path)], "clever-otter", pytest.fail):
        pass


def test_two_runs_get_two_different_gpus(tmp_path: Path) -> None:
    gpus = [resource(tmp_path, "GPU 0"), resource(tmp_path, "GPU 1")]
    with lock_any(gpus, "brave-lynx", print) as one, lock_any(gpus, "clever-otter", pytest.fail) as two:
        assert [one.name, two.name] == ["GPU 0", "GPU 1"]


def test_a_process_that_outlived_its_run_is_named_and_waited_for(tmp_path: Path) -> None:
    locked = resource(tmp_path)
    with lock_any([locked], "brave-lynx", print):
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=locked.environment)
    logged: list[str] = []

    def log(line: str) -> None:
        logged.append(line)
        orphan.kill()
        orphan.wait()

    with lock_any([locked], "clever-otter", log):
        assert orphan.returncode is not None
    assert "brave-lynx (process" in logged[0]
    assert f"its processes still run: {orphan.pid};" in logged[0]
