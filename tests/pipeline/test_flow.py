"""The flow on a small graph, under Prefect's own test harness."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.testing.utilities import prefect_test_harness

from pipeline import flow, graph
from pipeline.gpu import LIMIT


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        with get_client(sync_client=True) as client:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        yield


@pytest.fixture(autouse=True)
def cpu_host(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    """In the small graph's folder, on a host without GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(workspace)


def run(**parameters: Any) -> State[Any]:
    return flow.melnet(**parameters, return_state=True)


def task_states(state: State[Any]) -> dict[str, str]:
    """Names of the run's tasks in the order in which they ended -> names of their states."""
    flow_run = state.state_details.flow_run_id
    assert flow_run is not None
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run])))
    runs.sort(key=lambda run: (run.end_time is None, run.end_time))
    return {run.name: run.state_name or "" for run in runs}


def test_every_stage_is_a_task_and_runs_once(workspace: Path) -> None:
    first = run()
    assert first.is_completed(), first.message
    states = task_states(first)
    assert set(states.values()) == {"Completed"}
    first_ended, *tiers, last_ended = states
    assert (first_ended, sorted(tiers), last_ended) == ("first", ["train@tier-1", "train@tier-2"], "last")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    result = first.result()
    assert result["commit"] == head and result["metrics"] == {"score.json": {"loss": 1.5}}
    assert len(result["dvc_lock"]) == 32

    again = run()
    assert set(task_states(again).values()) == {"Cached"}
    assert "no work was done" in str(again.message)
    assert again.result()["dvc_lock"] == result["dvc_lock"]

    assert set(task_states(run(target="first", force=True)).values()) == {"Completed"}


def test_a_failed_stage_ends_the_run_in_its_own_words_at_once(workspace: Path) -> None:
    (workspace / "first.py").write_text("import sys; sys.exit('corpus/a.wav: not audio')")
    state = run(target="train")
    assert state.is_failed()
    assert state.message == "first: corpus/a.wav: not audio"
    assert task_states(state) == {"first": "Failed", "train@tier-1": "NotReady", "train@tier-2": "NotReady"}


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
    with get_client(sync_client=True) as client:
        latest = client._client.post("/artifacts/latest/filter", json={}).json()
    table = next(artifact["data"] for artifact in latest if artifact["key"] == "first")
    assert f"| 2 B | 1 | store ({tmp_path / 'store'}) |" in table


def test_a_stage_that_trains_has_a_gpu_of_its_own(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    config = (workspace / "dvc.yaml").read_text()
    told = "import os; print('uses', repr(os.environ['CUDA_VISIBLE_DEVICES'])); "
    (workspace / "dvc.yaml").write_text(config.replace('python -c "', f'python -c "{told}'))
    (workspace / "first.py").write_text(f"{told}from pathlib import Path; Path('out/first.txt').touch()")
    lines: list[str] = []
    reproduce = graph.reproduce

    def listen(root: Path, stage: str, **options: Any) -> bool:
        say = options.pop("log")

        def log(line: str) -> None:
            say(line)
            if line.startswith("uses "):
                lines.append(f"{stage} {line}")

        return reproduce(root, stage, log=log, **options)

    monkeypatch.setattr(graph, "reproduce", listen)
    state = run(target="train@tier-1")
    assert state.is_completed(), state.message
    assert lines == ["first uses ''", "train@tier-1 uses '3'"]


def test_an_unknown_target_is_named(workspace: Path) -> None:
    assert "no stage 'tain'" in str(run(target="tain").message)


@pytest.mark.parametrize(
    ("error", "mends"),
    [
        (graph.Busy("train: busy"), True),
        (graph.RemoteUnreachable("timed out"), True),
        (graph.StageFailed("train: no audio"), False),
        (graph.PushFailed("denied"), False),
    ],
)
def test_only_locks_and_the_network_are_retried(error: Exception, mends: bool) -> None:
    failed: State[Any] = State(type="FAILED", data=error)
    assert flow.mendable(flow.run_stage, None, failed) is mends  # type: ignore[arg-type]
