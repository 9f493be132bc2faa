"""The flow on a small graph, under Prefect's own test harness."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.settings import get_current_settings

from pipeline import flow, gpu, graph
from pipeline import workspace as workspaces
from pipeline.gpu import LIMIT
from pipeline.process_tree import processes_with

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def one_slot() -> Iterator[None]:
    """One slot of the limit, as on a host with one GPU; the other tests have two."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=1))
        yield
        client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=2))


@pytest.fixture(autouse=True)
def cpu_host(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    """Run in the folder of the small graph, on a host without GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(workspace)


def run(**parameters: Any) -> State[Any]:
    return flow.melnet(**parameters, return_state=True)


def task_runs(state: State[Any]) -> list[TaskRun]:
    """The run's tasks in the order in which they ended."""
    flow_run = state.state_details.flow_run_id
    assert flow_run is not None
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run])))
    return sorted(runs, key=lambda run: (run.end_time is None, run.end_time))


def task_states(state: State[Any]) -> dict[str, str]:
    """State names by task name, in the order in which the run's tasks ended."""
    return {run.name: run.state_name or "" for run in task_runs(state)}


def artifact(key: str) -> str:
    """The latest artifact with a key."""
    with get_client(sync_client=True) as client:
        latest = client._client.post("/artifacts/latest/filter", json={}).json()
    return next(found["data"] for found in latest if found["key"] == key)


def lines_starting(start: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that collects, while stages run, their lines that begin with ``start``, after the name of the stage."""
    lines: list[str] = []
    reproduce = graph.reproduce

    def listen(root: Path, stage: str, *, log: Callable[[str], object], **options: Any) -> bool:
        def log_line(line: str) -> None:
            log(line)
            if line.startswith(start):
                lines.append(f"{stage} {line}")

        return reproduce(root, stage, log=log_line, **options)

    monkeypatch.setattr(graph, "reproduce", listen)
    return lines


def test_every_stage_is_a_task_and_runs_once(workspace: Path) -> None:
    first = run()
    assert first.is_completed(), first.message
    states = task_states(first)
    assert set(states.values()) == {"Completed"}
    first_ended, *tiers, last_ended = states
    assert (first_ended, sorted(tiers), last_ended) == ("first", ["train@tier-1", "train@tier-2"], "evaluate")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    result = first.result()
    assert result["commit"] == head and result["metrics"] == {"score.json": {"loss": 1.5}}
    assert len(result["dvc_lock"]) == 32

    assert "| out/tier-2.txt | `" in artifact("train-tier-2")
    metrics = artifact("metrics-evaluate")
    assert "| score.json | loss" in metrics
    assert f"[pictures/curve.svg](file://{workspace}/pictures/curve.svg)" in metrics
    summary = artifact("melnet-run")
    assert f"| dvc_lock | `{result['dvc_lock']}` |" in summary and '"loss": 1.5' in summary

    again = run()
    assert set(task_states(again).values()) == {"Cached"}
    assert "no work was done" in str(again.message)
    assert again.result()["dvc_lock"] == result["dvc_lock"]

    assert set(task_states(run(target="first", force=True)).values()) == {"Completed"}


def test_a_failed_stage_fails_the_run_with_its_message_and_without_retries(workspace: Path) -> None:
    (workspace / "first.py").write_text("import sys; sys.exit('corpus/a.wav: not audio')")
    state = run(target="train")
    assert state.is_failed()
    assert state.message == "first: corpus/a.wav: not audio"
    assert task_states(state) == {"first": "Failed", "train@tier-1": "NotReady", "train@tier-2": "NotReady"}
    assert {task.run_count for task in task_runs(state) if task.name == "first"} == {1}


def test_overrides_run_as_an_experiment_and_leave_the_workspace_alone(workspace: Path) -> None:
    state = run(target="first", params={"first.words": 3})
    assert state.is_completed(), state.message
    name = state.result()["experiment"].split()[0]
    listed = subprocess.run(graph.command("exp", "show", "--json"), capture_output=True, text=True, check=True).stdout
    assert name in listed
    experiments = [found for entry in json.loads(listed) for found in entry["experiments"] or []]
    assert [found["name"] for found in experiments] == [name]
    params = experiments[0]["revs"][0]["data"]["params"]["params.yaml"]["data"]
    assert params == {"first": {"words": 3}}
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    assert status == ""
    assert not (workspace / "out/first.txt").exists()
    assert list(workspace.parent.iterdir()) == [workspace]


def test_push_reports_where_the_versions_are(workspace: Path, tmp_path: Path) -> None:
    state = run(target="first", push=True)
    assert state.is_failed() and "no default remote" in str(state.message)
    subprocess.run(graph.command("remote", "add", "-d", "store", str(tmp_path / "store")), check=True)
    state = run(target="first", push=True)
    assert task_states(state) == {"first": "Completed", "push first": "Completed"}
    assert f"| 2 Bytes | 1 | store ({tmp_path / 'store'}) |" in artifact("first")


PRINTS_GPU = """
import os, sys
from pathlib import Path
print('uses', repr(os.environ['CUDA_VISIBLE_DEVICES']))
Path(f'out/{(*sys.argv, "first")[1]}.txt').touch()
"""


def test_a_stage_that_trains_has_a_gpu_of_its_own(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for script in ("first.py", "tier.py"):
        (workspace / script).write_text(PRINTS_GPU)
    lines = lines_starting("uses ", monkeypatch)
    state = run(target="train@tier-1")
    assert state.is_completed(), state.message
    assert lines == ["first uses ''", "train@tier-1 uses '3'"]


# Ends when the other tier has begun.
WAITS_FOR_THE_OTHER = """
import os, sys, time
from pathlib import Path
Path(f'out/{sys.argv[1]}.txt').touch()
Path(f'began-{sys.argv[1]}').touch()
while len(list(Path.cwd().glob('began-*'))) < 2:
    time.sleep(0.1)
print('uses', os.environ['CUDA_VISIBLE_DEVICES'])
"""


def test_two_tiers_train_side_by_side_on_two_gpus(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a,GPU-2b")
    (workspace / "tier.py").write_text(WAITS_FOR_THE_OTHER)
    lines = lines_starting("uses ", monkeypatch)
    state = run(target="train")
    assert state.is_completed(), state.message
    stages, gpus = zip(*(line.split(" uses ") for line in lines), strict=True)
    assert sorted(stages) == ["train@tier-1", "train@tier-2"]
    assert sorted(gpus) == ["GPU-1a", "GPU-2b"]


def test_an_unknown_target_is_named(workspace: Path) -> None:
    assert "no stage 'tain'" in str(run(target="tain").message)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without waiting."""
    for name in ("run_stage", "push_stage"):
        task = getattr(flow, name)
        assert task.retry_delay_seconds == [10, 30, 90, 270]
        monkeypatch.setattr(flow, name, task.with_options(retry_delay_seconds=0))


def failing(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, times: int) -> None:
    """Make a function of the module graph fail ``times`` times before it works."""
    works, left = getattr(graph, name), [error] * times

    def fails(*arguments: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return works(*arguments, **options)

    monkeypatch.setattr(graph, name, fails)


@pytest.mark.usefixtures("at_once")
def test_a_lock_that_another_process_held_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    for blocked in ("changes", "reproduce"):
        failing(monkeypatch, blocked, graph.Retryable("first: busy, it is being blocked by PID 7"), times=1)
    state = run(target="first")
    assert state.is_completed(), state.message
    assert [task.run_count for task in task_runs(state)] == [3]


@pytest.mark.usefixtures("at_once")
def test_a_push_is_retried_on_network_errors_only(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(graph.command("remote", "add", "-d", "store", str(tmp_path / "store")), check=True)
    failing(monkeypatch, "push", graph.Retryable("dvc push first: timed out"), times=4)
    state = run(target="first", push=True)
    assert state.is_completed(), state.message
    assert {task.name: task.run_count for task in task_runs(state)} == {"first": 1, "push first": 5}

    failing(monkeypatch, "push", graph.Retryable("dvc push first: timed out"), times=5)
    state = run(target="first", push=True)
    assert state.is_failed() and "dvc push first: timed out" in str(state.message)

    failing(monkeypatch, "push", graph.DvcFailed("dvc push first: access denied"), times=1)
    state = run(target="first", push=True)
    assert state.is_failed() and "dvc push first: access denied" in str(state.message)
    assert {task.name: task.run_count for task in task_runs(state)} == {"first": 1, "push first": 1}


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (graph.Retryable("train: busy"), True),
        (graph.DvcFailed("train: no audio"), False),
        (ConcurrencySlotAcquisitionError("no such limit"), False),
        (RuntimeError("a bug"), False),
    ],
)
def test_only_locks_and_the_network_are_retried(error: Exception, retryable: bool) -> None:
    failed: State[Any] = State(type="FAILED", data=error)
    assert flow.is_retryable(flow.run_stage, None, failed) is retryable  # type: ignore[arg-type]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("cause", "attempts"), [(TimeoutError("no answer"), 2), (None, 1)])
def test_a_server_that_does_not_answer_is_retried_and_a_missing_limit_is_not(
    cause: Exception | None, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    concurrency, asked = gpu.concurrency, []

    def refuse_once(*names: str, **options: Any) -> AbstractContextManager[None]:
        asked.append(names)
        if len(asked) == 1:
            raise ConcurrencySlotAcquisitionError("Unable to acquire concurrency slots on ['gpu']") from cause
        return concurrency(*names, **options)

    monkeypatch.setattr(gpu, "concurrency", refuse_once)
    state = run(target="train@tier-1")
    assert state.is_completed() == (cause is not None)
    assert len(asked) == attempts
    assert (cause is not None) or "Unable to acquire" in str(state.message)


def test_an_experiment_needs_nothing_of_the_stages_outside_its_target(workspace: Path) -> None:
    """As in a fresh clone, which has dvc.lock but no cache."""
    subprocess.run(graph.command("repro", "--quiet"), env=graph.environment(), check=True)
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "run"], check=True)
    for folder in ("pictures", ".dvc/cache"):
        shutil.rmtree(workspace / folder)
    state = run(target="first", params={"first.words": 3})
    assert state.is_completed(), state.message
    _, commit = state.result()["experiment"].rstrip(")").split(" (")
    changed = ["git", "diff", "--name-only", "HEAD", commit]
    assert subprocess.run(changed, capture_output=True, text=True, check=True).stdout.split() == [
        "dvc.lock",
        "params.yaml",
    ]


def test_a_run_waits_for_a_stage_that_outlived_its_run_and_logs_its_process(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its worker and its run were killed together."""
    logged: list[str] = []
    lock_any = workspaces.lock_any
    variables = os.environ | {"MELNET_WORKSPACE": str(workspace)}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=variables) as orphan:

        def listening(resources: Any, holder: str, log: Callable[[str], object]) -> AbstractContextManager[Any]:
            def log_line(line: str) -> None:
                log(line)
                logged.append(line)
                orphan.kill()
                orphan.wait()

            return lock_any(resources, holder, log_line)

        monkeypatch.setattr(workspaces, "lock_any", listening)
        state = run(target="first")
    assert state.is_completed(), state.message
    assert len(logged) == 1 and f"its processes still run: {orphan.pid};" in logged[0]


BEGINS = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(f'began-{sys.argv[1]}').touch()
time.sleep(600)
"""
RUN = """
from pipeline import flow, process_tree
process_tree.GRACE_SECONDS = 0.5
flow.melnet(target='train')
"""


@pytest.mark.usefixtures("one_slot")
def test_a_cancelled_run_ends_a_stage_that_ignores_it_and_starts_no_other(workspace: Path, tmp_path: Path) -> None:
    """The second tier waits for the slot, and gets it when the first ends."""
    (workspace / "tier.py").write_text(BEGINS)
    variables = os.environ | {
        "PREFECT_API_URL": str(get_current_settings().api.url),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PYTHONPATH": str(Path(flow.__file__).parents[1]),
    }
    # In a process group of its own, as a worker starts it.
    with subprocess.Popen([sys.executable, "-c", RUN], env=variables, start_new_session=True) as child:
        try:
            while not list(workspace.glob("began-*")):
                assert child.poll() is None
                time.sleep(0.1)
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(120)
            left = processes_with("MELNET_WORKSPACE", str(workspace))
        finally:
            with suppress(ProcessLookupError):  # it is gone, as it should be
                os.killpg(child.pid, signal.SIGKILL)
    assert left == []
    assert len(list(workspace.glob("began-*"))) == 1
