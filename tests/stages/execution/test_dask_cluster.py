"""The stages on a real Dask cluster on loopback: a scheduler and two worker processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from stages.command import StageError  # noqa: E402
from stages.execution import dask_cluster as cluster  # noqa: E402  # needs Dask
from stages.execution.parallel import AHEAD, parallel  # noqa: E402
from tests.params_file import edit_params  # noqa: E402

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "DVC_NO_ANALYTICS": "1",
    "DASK_LOGGING__DISTRIBUTED": "error",
}
FILES = 40


class Processes:
    """A scheduler and its workers, as their owner starts them: with the project's environment, on loopback."""

    def __init__(self, stack, folder, code):
        self.stack, self.folder, self.code = stack, folder, code
        about = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(about))
        wait_for(about.exists)
        self.client = stack.enter_context(distributed.Client(scheduler_file=str(about), set_as_default=False))
        self.address = self.client.scheduler.address

    def start(self, kind, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments, "--no-dashboard"]
        log = self.stack.enter_context((self.folder / f"{kind}.log").open("a"))
        environment = ENVIRONMENT | {"PYTHONPATH": str(self.code)}
        process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def worker(self):
        before = len(self.client.nthreads())
        process = self.start(
            "worker", self.address, "--no-nanny", "--nthreads", "1", "--local-directory", str(self.folder)
        )
        wait_for(lambda: len(self.client.nthreads()) > before)
        return process


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.02)


@pytest.fixture
def processes(tmp_path):
    with ExitStack() as stack:
        yield Processes(stack, tmp_path, ROOT)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recordings of different lengths and rates, some in folders, one damaged."""
    folder = tmp_path_factory.mktemp("corpus") / "recordings"
    rng = np.random.default_rng(0)
    for number in range(FILES):
        path = folder / ("sub folder" if number % 3 else "") / f"{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = (44100, 48000, 24000)[number % 3]
        soundfile.write(path, rng.normal(0, 0.1, (int(rate * (8 + number % 5)), 2)), rate)
    (folder / "broken.wav").write_bytes((folder / "00.wav").read_bytes()[:-1000])
    return folder


def workspace(folder, corpus):
    """A project with its own DVC, in which `dvc repro slice` runs on that corpus."""
    folder.mkdir()
    for name in ("melnet", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    edit_params(folder, {"corpus": {"path": "../recordings"}, "slice": {"block_seconds": 3.0, "shard_rows": 50}})
    if not (folder.parent / "recordings").exists():
        (folder.parent / "recordings").symlink_to(corpus)
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, env=ENVIRONMENT, check=True)
    return folder


def repro(folder, address=None):
    environment = ENVIRONMENT | {"PYTHONPATH": str(folder)} | ({cluster_variable: address} if address else {})
    return subprocess.Popen(
        ["dvc", "repro", "slice"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


cluster_variable = "DASK_SCHEDULER_ADDRESS"


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_with_a_worker_killed_midway_the_shards_and_the_lock_are_those_of_one_machine(tmp_path, corpus):
    alone = workspace(tmp_path / "alone", corpus)
    local = repro(alone)
    output, _ = local.communicate()
    assert local.returncode == 0, output

    shared = workspace(tmp_path / "shared", corpus)
    with ExitStack() as stack:
        processes = Processes(stack, tmp_path, shared)
        victim, _ = processes.worker(), processes.worker()
        (lost,) = [address for address, pid in processes.client.run(os.getpid).items() if pid == victim.pid]
        run = repro(shared, processes.address)

        def busy():
            """Some files are done, and the worker has others."""
            made = len(list(shared.glob("data/.tmp-*/**/*.flac")))
            assert run.poll() is None, run.communicate()[0]
            return made >= 5 and processes.client.processing().get(lost)

        wait_for(busy)
        victim.send_signal(signal.SIGKILL)
        wait_for(lambda: lost not in processes.client.nthreads())
        assert run.poll() is None, "the stage was done before the worker was killed"
        output, _ = run.communicate()
        assert run.returncode == 0, output
    assert contents(shared / "data") == contents(alone / "data")
    assert (shared / "dvc.lock").read_text() == (alone / "dvc.lock").read_text()
    assert len(list((shared / "data/24k").rglob("*.flac"))) == FILES


def test_many_items_flood_neither_scheduler_nor_client(processes):
    """100,000 take some minutes (`make test-faults`); the bound is the same."""
    check_flood(processes, 2000)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.environ.get("FAULTS") == "bounded", reason="takes too long for the bounded form")
def test_100_000_items_flood_neither_scheduler_nor_client(processes):
    check_flood(processes, 100_000)


def check_flood(processes, count):
    for _ in range(2):
        processes.worker()
    window = AHEAD * 2
    known, done = [], threading.Event()

    def watch():
        while not done.wait(0.02):
            known.append(processes.client.run_on_scheduler(tasks_of))

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = most = 0

    def items():
        nonlocal taken
        for item in range(count):
            taken += 1
            yield item

    try:
        results = parallel(
            abs, items(), total=count, label="flood", unit="items", scheduler=processes.address, shared=[ROOT]
        )
        for expected, result in enumerate(results):
            assert result == expected
            most = max(most, taken - expected)
    finally:
        done.set()
        watcher.join()
    assert expected == count - 1
    assert most <= window + 1
    assert len(known) > 20
    # The scheduler forgets what is done a moment after it is taken.
    assert max(known) <= 2 * window


def tasks_of(dask_scheduler):
    return len(dask_scheduler.tasks)


def run(processes, function, items, **options):
    options = {"shared": [ROOT], "scheduler": processes.address} | options
    return list(parallel(function, items, total=len(items), label="test", unit="items", **options))


def fail(item):
    if item == 3:
        raise StageError("data/24k/3.flac: damaged")
    return item


def test_an_error_of_the_work_arrives_as_it_is(processes):
    processes.worker()
    with pytest.raises(StageError, match=r"^data/24k/3\.flac: damaged$"):
        run(processes, fail, range(50))


def test_a_worker_that_does_not_see_a_folder_is_named(processes, tmp_path, monkeypatch):
    processes.worker()
    (tmp_path / "here").mkdir()
    listing = cluster._names
    monkeypatch.setattr(cluster, "_names", lambda folder: listing(folder) or "names that only this process sees")
    with pytest.raises(StageError, match=r"none: the Dask worker \S+:\d+ does not see it; all workers must mount it"):
        run(processes, abs, range(5), shared=[tmp_path / "here", tmp_path / "none"])


def test_a_worker_with_other_code_or_versions_is_named(processes, monkeypatch):
    processes.worker()
    found = cluster.installation([])
    other = cluster.Installation((*found.versions[:-1], "soxr 0.1"), found.code, ())
    monkeypatch.setattr(cluster, "installation", lambda shared: other)
    with pytest.raises(StageError, match=r"has soxr \S+, here is soxr 0\.1: install requirements\.lock on both"):
        run(processes, abs, range(5))
    other = cluster.Installation(found.versions, "0", ())
    with pytest.raises(StageError, match="runs other code than this"):
        run(processes, abs, range(5))


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(StageError, match=r"execution\.dask_scheduler: tcp://127\.0\.0\.1:1 cannot be reached"):
        list(parallel(abs, range(3), total=3, label="t", unit="i", scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(StageError, match=r"execution\.dask_scheduler: nonsense://x:1 cannot be reached"):
        list(parallel(abs, range(3), total=3, label="t", unit="i", scheduler="nonsense://x:1"))


def test_a_cluster_without_workers_is_not_waited_for_forever(processes, monkeypatch):
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 1.0)
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.2)
    with pytest.raises(StageError, match=r"has had no worker for 1 s; start one: dask worker tcp://"):
        run(processes, abs, range(3))


def die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_file_that_kills_every_worker_is_named(processes):
    workers = [processes.worker() for _ in range(4)]
    with pytest.raises(StageError, match=r"every Dask worker that took on this piece of work died: the culprit"):
        run(processes, die, ["the culprit"])
    assert all(worker.wait(30) == -signal.SIGKILL for worker in workers)


def test_a_lost_scheduler_ends_the_stage(processes):
    processes.worker()
    threading.Timer(2, processes.scheduler.kill).start()
    started = time.monotonic()
    with pytest.raises(StageError, match=r"execution\.dask_scheduler: tcp://\S+ (was lost|does not answer any more)"):
        run(processes, time.sleep, [0.05] * 10_000)
    assert time.monotonic() - started < 60


class Broken:
    """A future whose result cannot be fetched."""

    def __init__(self, error, status="pending"):
        self.error, self.status = error, status

    def result(self, timeout=None):
        raise self.error


def unconnected():
    return cluster.Cluster(None, "tcp://there:8786", cluster.installation([]))


def test_a_scheduler_lost_while_a_result_is_on_its_way_is_named():
    broken = Broken(cluster.CommClosedError("in <TCP (closed)>: Stream is closed"), "finished")
    with pytest.raises(StageError, match=r"^execution\.dask_scheduler: tcp://there:8786 was lost$"):
        unconnected().result(broken, "1.flac")


def test_a_time_out_of_the_work_is_not_taken_for_one_of_the_wait():
    with pytest.raises(TimeoutError, match="s3://bucket does not answer"):
        unconnected().result(Broken(TimeoutError("s3://bucket does not answer"), "error"), "1.flac")


def test_a_result_that_takes_long_to_fetch_is_waited_for(monkeypatch):
    monkeypatch.setattr(cluster.Cluster, "slots", lambda self: 1)

    class Slow:
        status, waits = "finished", 0

        def result(self, timeout=None):
            self.waits += 1
            if self.waits < 3:
                raise TimeoutError
            return "samples"

    assert unconnected().result(Slow(), "1.flac") == "samples"
