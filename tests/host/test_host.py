"""A whole host as its owner uses it: server, workers and deployments, in a clone with small parameters.

The tests share one host and run in the order of the file. ``make test-host`` runs them; they take some minutes.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from pipeline.experiment import override

Found = TypeVar("Found")
ROOT = Path(__file__).resolve().parents[2]
BUSY = 300.0  # s until anything that a test waits for must have happened, even on a busy machine
SMALL = {
    "demo.minutes": 0.6,
    "demo.files": 2,
    "model.tiers": {"tier-1": {"layers": 1, "hidden": 8}},
    "train.windows_per_epoch": 32,
    "train.epochs": 2,
    "vocoder.pitch_steps": 2,
    "vocoder.envelope_steps": 2,
    "vocoder.hidden": 8,
    "vocoder.blocks": 1,
    "generate.count": 2,
    "generate.measured": 0,
    "generate.frames": 20,
}
pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]


@dataclass
class Host:
    """A clone whose host is up."""

    root: Path
    variables: dict[str, str]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.variables['PREFECT_SERVER_API_PORT']}/api"

    def bring(self, action: str) -> str:
        command = [sys.executable, "-m", "pipeline.host", action]
        done = subprocess.run(command, cwd=self.root, env=self.variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def services(self) -> dict[str, psutil.Process]:
        """The processes that `up` started, by name."""
        files = (self.root / ".host").glob("*.pid")
        return {file.stem: psutil.Process(int(file.read_text())) for file in files}

    def start(self, deployment: str, *parameters: str) -> subprocess.Popen[str]:
        """Run a deployment with the command that docs/scheduling.md gives, in the background."""
        command = [sys.executable, "-m", "prefect", "deployment", "run", f"melnet/{deployment}"]
        command += ["--watch", "--watch-interval", "1", *(part for one in parameters for part in ("--param", one))]
        environment = self.variables | {"PREFECT_API_URL": self.api, "NO_COLOR": "1", "COLUMNS": "200"}
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, deployment: str, *parameters: str) -> tuple[int, dict[str, Any]]:
        """Run a deployment to its end; the exit status of the command and the flow run that it made."""
        process = self.start(deployment, *parameters)
        output, _ = process.communicate()
        found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", output)
        assert found, output
        return process.returncode, self.get(f"flow_runs/{found[0]}")

    def get(self, path: str) -> Any:
        return self.ask("GET", path).json()

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> httpx.Response:
        """Send a request to the server, and again while its database is locked, as Prefect's client does."""

        def answered() -> httpx.Response | None:
            answer = httpx.request(method, f"{self.api}/{path}", json=content, timeout=BUSY)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        return wait(answered).raise_for_status()

    def find(self, kind: str, run: str | None = None, sort: str | None = None) -> list[dict[str, Any]]:
        """Flow runs, or the task runs or logs of a flow run."""
        query: dict[str, Any] = {"sort": sort} if sort else {}
        if run is not None:
            query |= {"logs": {"flow_run_id": {"any_": [run]}}, "flow_runs": {"id": {"any_": [run]}}}
        return self.ask("POST", f"{kind}/filter", query).json()

    def log(self, run: str) -> str:
        return "\n".join(line["message"] for line in self.find("logs", run, "TIMESTAMP_ASC"))

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        return {task["name"]: task for task in self.find("task_runs", run)}

    def running(self) -> dict[str, Any] | None:
        """The flow run in progress."""
        return next((run for run in self.find("flow_runs") if run["state_type"] == "RUNNING"), None)

    def stage_processes(self) -> list[psutil.Process]:
        """Processes of stages that run in this clone or an experiment of it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MELNET_WORKSPACE", "").startswith(str(self.root)):
                    found.append(process)
            except psutil.Error:  # it has just ended, or is another user's
                continue
        return found


def wait(until: Callable[[], Found], seconds: float = BUSY) -> Found:
    """Call ``until`` until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    root = tmp_path_factory.mktemp("host") / "clone"
    _copy_project(root)
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CUDA_"))}
    variables = keep | {
        "PREFECT_HOME": str(root.parent / "prefect"),
        "PREFECT_SERVER_API_PORT": str(_free_ports()),
        "PYTHONPATH": str(root),
        "CUDA_VISIBLE_DEVICES": "",
        # s between polls of a worker and between uploads of a log: the defaults, 10 and 2, would take most of the time.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    }
    host = Host(root, variables)
    try:
        host.bring("up")
        yield host
    finally:
        host.bring("down")


def _copy_project(root: Path) -> None:
    """The project's files as they are now, committed in a repository of their own, with small parameters."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    override(root / "params.yaml", SMALL)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "small"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def _free_ports() -> int:
    """A port that is free together with the next, which serves the pictures."""
    for port in range(4300, 4900, 2):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two free ports from 4300 to 4900")


def test_host_can_be_brought_up_again_and_keeps_its_schedule(host: Host) -> None:
    deployments = {deployment["name"]: deployment for deployment in host.find("deployments")}
    assert set(deployments) == {"prepare", "train", "generate", "repro"}
    [nightly] = deployments["repro"]["schedules"]
    assert nightly["active"] is False
    schedule = f"deployments/{deployments['repro']['id']}/schedules/{nightly['id']}"
    host.ask("PATCH", schedule, {"active": True})

    before = host.services()
    assert host.bring("up").count("runs already") == 4
    assert host.services() == before
    [nightly] = next(found["schedules"] for found in host.find("deployments") if found["name"] == "repro")
    assert nightly["active"] is True
    wait(lambda: [run for run in host.find("flow_runs") if run["state_name"] == "Scheduled"])
    # Off again, so that no run starts at two o'clock.
    host.ask("PATCH", schedule, {"active": False})


def test_train_leaves_model_and_metrics_and_shows_its_epochs(host: Host) -> None:
    status, run = host.run("train")
    assert status == 0, host.log(run["id"])
    assert (host.root / "models/melnet.json").exists()
    assert (host.root / "metrics/evaluate.json").exists()
    assert {task["state_name"] for task in host.tasks(run["id"]).values()} == {"Completed"}
    assert re.search(r"epoch 2 of 2: loss -?\d", host.log(run["id"]))
    # Prefect keeps the flow's result as an artifact too, without a key.
    artifacts = {artifact["key"]: artifact for artifact in host.find("artifacts/latest") if artifact["key"]}
    versions = "\n".join(artifact["data"] for artifact in artifacts.values())
    for output in ("models/melnet.json", "models/tier-1.weights.h5"):
        assert re.search(rf"^\| {output} \| `[0-9a-f]{{32}}` \|", versions, re.MULTILINE)
    # The pictures are made by a stage of their own.
    assert host.run("train", "target=plots")[0] == 0
    [plots] = [artifact for artifact in host.find("artifacts/latest") if artifact["key"] == "plots"]
    picture = re.search(r"!\[[^]]*\]\((http[^)]*\.png)\)", plots["data"])
    assert picture and httpx.get(picture[1]).content.startswith(b"\x89PNG")


def test_the_same_again_does_no_work_and_says_so(host: Host) -> None:
    status, run = host.run("train")
    assert status == 0
    assert {task["state_name"] for task in host.tasks(run["id"]).values()} == {"Cached"}
    assert "no work was done" in run["state"]["message"]
    assert "no work was done" in host.log(run["id"])


def test_two_runs_started_together_are_served_one_after_the_other(host: Host) -> None:
    parameters = ["force=true", "target=downsample"]
    processes = [host.start("train", *parameters), host.start("prepare", *parameters)]
    # The first run is suspended until the second waits for it, however slowly the second starts.
    suspended = wait(host.stage_processes)
    for process in suspended:
        process.suspend()
    runs = wait(lambda: [run for run in host.find("flow_runs") if "is held by" in host.log(run["id"])])
    for process in suspended:
        process.resume()
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    [second] = runs
    holder = re.search(r"is held by (\S+) \(([0-9a-f-]{36})\)", host.log(second["id"]))
    assert holder
    first = host.get(f"flow_runs/{holder[2]}")
    assert first["name"] == holder[1] and first["id"] != second["id"]
    ended, began = host.tasks(first["id"])["downsample"]["end_time"], host.tasks(second["id"])["demo"]["start_time"]
    assert datetime.fromisoformat(ended) < datetime.fromisoformat(began)


def test_a_broken_corpus_fails_with_the_message_of_the_stage(host: Host) -> None:
    (host.root / "data/broken").mkdir()
    (host.root / "data/broken/song.wav").write_bytes(b"not audio")
    status, run = host.run("prepare", 'params={"corpus.path": "data/broken"}', "target=downsample")
    assert status == 1
    for text in (host.log(run["id"]), run["state"]["message"]):
        assert "no usable recording in data/broken" in text
    assert "exit" not in run["state"]["message"]


# More epochs than any test waits for, so that training is in progress whenever a test interrupts it.
EPOCH = r"epoch (\d+) of \d+: loss"
LONG = ['params={"train.epochs": 100000}', "target=train"]


def training(host: Host, run: dict[str, Any] | None = None) -> dict[str, Any]:
    """Wait until a run in progress, other than ``run``, has finished two epochs, and return it."""

    def found() -> dict[str, Any] | None:
        now = host.running()
        if now is None or (run and now["id"] == run["id"]):
            return None
        return now if len(re.findall(EPOCH, host.log(now["id"]))) >= 2 else None

    try:
        return wait(found)
    except AssertionError:
        for run in host.find("flow_runs", sort="START_TIME_ASC"):
            print(run["name"], run["state_name"], run["state"]["message"], host.log(run["id"]), "", sep="\n")
        raise


def epochs(log: str) -> tuple[int, int]:
    """The epoch after which a training continued (0 if it began anew), and the first epoch that it finished."""
    continued, began = re.search(r"continuing after epoch (\d+)", log), re.search(EPOCH, log)
    assert began
    return int(continued[1]) if continued else 0, int(began[1])


def test_a_cancelled_training_leaves_no_process_and_resumes(host: Host) -> None:
    watching = host.start("train", *LONG)
    run = training(host)
    assert epochs(host.log(run["id"])) == (0, 1)
    # As the user interface does, since the command takes some seconds to start.
    cancelling = {"state": {"type": "CANCELLING"}}
    host.ask("POST", f"flow_runs/{run['id']}/set_state", cancelling)
    wait(lambda: not host.stage_processes(), seconds=10)
    watching.communicate()
    assert host.get(f"flow_runs/{run['id']}")["state_type"] == "CANCELLED"

    with host.start("train", *LONG) as watching:
        again = training(host, run)
        continued, began = epochs(host.log(again["id"]))
        assert continued >= 2 and began == continued + 1

        # A worker that is killed leaves no process either.
        host.services()["worker-gpu"].kill()
        wait(lambda: not host.stage_processes())
        assert watching.wait() == 1
    assert host.get(f"flow_runs/{again['id']}")["state_type"] == "CRASHED"


def test_stopping_the_host_ends_exactly_what_it_started(host: Host) -> None:
    assert "started worker-gpu" in host.bring("up")
    started = host.services()
    with subprocess.Popen(["sleep", "1000"], cwd=host.root, env=host.variables) as bystander:
        with host.start("train", *LONG) as watching:
            continued, began = epochs(host.log(training(host)["id"]))
            assert continued >= 4 and began == continued + 1
            host.bring("down")
            watching.kill()  # its server is gone
        assert [name for name, process in started.items() if process.is_running()] == []
        assert host.stage_processes() == []
        assert bystander.poll() is None
        bystander.kill()
