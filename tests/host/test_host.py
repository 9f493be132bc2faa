"""The whole host, as its owner uses it: server, workers and deployments in a clone with small parameters.

The tests share one host and run in the order of the file. ``make test-host`` runs them; they take some minutes.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipeline.experiment import override

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "demo.minutes": 0.6,
    "demo.files": 2,
    "model.tiers": {"tier-1": {"layers": 1, "hidden": 8}},
    "train.epochs": 2,
    "generate.count": 2,
    "generate.frames": 20,
}
pytestmark = [pytest.mark.host, pytest.mark.timeout(600)]


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

    def start(self, deployment: str, *arguments: str) -> subprocess.Popen[str]:
        """What a user types, once `make host` is done."""
        command = [sys.executable, "-m", "prefect", "deployment", "run", f"melnet/{deployment}", "--watch", *arguments]
        environment = self.variables | {"PREFECT_API_URL": self.api, "NO_COLOR": "1", "COLUMNS": "200"}
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, deployment: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit status of the command and the flow run it made."""
        process = self.start(deployment, *arguments)
        output, _ = process.communicate()
        found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", output)
        assert found, output
        return process.returncode, self.get(f"flow_runs/{found[0]}")

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.api}/{path}").raise_for_status().json()

    def find(self, kind: str, run: str | None = None, sort: str | None = None) -> list[dict[str, Any]]:
        """Flow runs, or the task runs or logs of a flow run."""
        query: dict[str, Any] = {"sort": sort} if sort else {}
        if run is not None:
            query |= {"logs": {"flow_run_id": {"any_": [run]}}, "flow_runs": {"id": {"any_": [run]}}}
        return httpx.post(f"{self.api}/{kind}/filter", json=query).raise_for_status().json()

    def log(self, run: str) -> str:
        return "\n".join(line["message"] for line in self.find("logs", run, "TIMESTAMP_ASC"))

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        return {task["name"]: task for task in self.find("task_runs", run)}

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
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    host = Host(root, variables)
    try:
        host.bring("up")
        started = [line.split()[1] for line in (root / ".host/started.json").read_text().splitlines() if "pid" in line]
        processes = [psutil.Process(int(pid.strip(","))) for pid in started]
        assert len(processes) == 4
        yield host
        host.bring("down")
        assert not [process for process in processes if process.is_running()]
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


def test_host_can_be_brought_up_again(host: Host) -> None:
    deployments = {deployment["name"]: deployment for deployment in host.find("deployments")}
    assert set(deployments) == {"prepare", "train", "generate", "repro"}
    [nightly] = deployments["repro"]["schedules"]
    assert nightly["active"] is False
    schedule = f"{host.api}/deployments/{deployments['repro']['id']}/schedules/{nightly['id']}"
    httpx.patch(schedule, json={"active": True}).raise_for_status()

    before = (host.root / ".host/started.json").read_text()
    assert host.bring("up").count("runs already") == 4
    assert (host.root / ".host/started.json").read_text() == before
    [nightly] = next(found["schedules"] for found in host.find("deployments") if found["name"] == "repro")
    assert nightly["active"] is True


def test_train_leaves_model_and_metrics_and_shows_its_epochs(host: Host) -> None:
    status, run = host.run("train")
    assert status == 0, host.log(run["id"])
    assert (host.root / "models/melnet.json").exists()
    assert (host.root / "metrics/evaluate.json").exists()
    assert {task["state_name"] for task in host.tasks(run["id"]).values()} == {"Completed"}
    assert re.search(r"epoch 2 of 2: loss -?\d", host.log(run["id"]))
    # Prefect keeps the flow's result as an artifact too, without a key.
    artifacts = {artifact["key"]: artifact for artifact in host.find("artifacts/latest") if artifact["key"]}
    versions = next(artifact["data"] for key, artifact in artifacts.items() if key.startswith("train"))
    assert "models/melnet.json" in versions
    picture = re.search(r"!\[[^]]*\]\((http[^)]*\.png)\)", artifacts["metrics-evaluate"]["data"])
    assert picture and httpx.get(picture[1]).content.startswith(b"\x89PNG")


def test_the_same_again_does_no_work_and_says_so(host: Host) -> None:
    status, run = host.run("train")
    assert status == 0
    assert {task["state_name"] for task in host.tasks(run["id"]).values()} == {"Cached"}
    assert "no work was done" in run["state"]["message"]
    assert "no work was done" in host.log(run["id"])


def test_two_runs_started_together_are_served_one_after_the_other(host: Host) -> None:
    # Some seconds of work, so that one starts while the other is at it.
    arguments = ["--param", "force=true", "--param", "target=slice"]
    processes = [host.start("train", *arguments), host.start("prepare", *arguments)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    runs = sorted(host.find("flow_runs"), key=lambda run: str(run["expected_start_time"]))[-2:]
    first, second = sorted(
        ({"run": run} | host.tasks(run["id"]) for run in runs), key=lambda tasks: str(tasks["demo"]["start_time"])
    )
    assert first["slice"]["end_time"] < second["demo"]["start_time"]
    assert f"is held by {first['run']['name']}" in host.log(second["run"]["id"])


def test_a_broken_corpus_fails_in_the_words_of_the_stage(host: Host) -> None:
    (host.root / "data/broken").mkdir()
    (host.root / "data/broken/song.wav").write_bytes(b"not audio")
    status, run = host.run(
        "prepare", "--param", 'params={"corpus.path": "data/broken"}', "--param", "target=downsample"
    )
    assert status == 1
    for told in (host.log(run["id"]), run["state"]["message"]):
        assert "no usable recording in data/broken" in told
    assert "exit" not in run["state"]["message"]


def test_a_cancelled_training_leaves_no_process_and_resumes(host: Host) -> None:
    arguments = ["--param", 'params={"train.epochs": 80}', "--param", "target=train"]
    watching = host.start("train", *arguments)
    deadline = time.monotonic() + 240
    run = None
    while run is None or "epoch 3 of 80" not in host.log(run["id"]):
        assert time.monotonic() < deadline, host.log(run["id"]) if run else "no run"
        time.sleep(0.5)
        run = next((run for run in host.find("flow_runs") if run["state_type"] == "RUNNING"), None)
    assert host.stage_processes()
    # As the UI does; the command takes some seconds to start.
    cancelling = {"state": {"type": "CANCELLING"}}
    httpx.post(f"{host.api}/flow_runs/{run['id']}/set_state", json=cancelling).raise_for_status()
    deadline = time.monotonic() + 10
    while host.stage_processes():
        assert time.monotonic() < deadline, host.stage_processes()
        time.sleep(0.2)
    watching.communicate()
    assert host.get(f"flow_runs/{run['id']}")["state_type"] == "CANCELLED"

    status, resumed = host.run("train", *arguments)
    log = host.log(resumed["id"])
    assert status == 0, log
    continued = re.search(r"continuing after epoch (\d+)", log)
    assert continued and int(continued[1]) >= 2
    assert "epoch 1 of 80" not in log
