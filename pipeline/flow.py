"""The Prefect flow `melnet`: brings the stages of dvc.yaml in the current folder up to date, one task per stage."""

import hashlib
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import CancelledRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed, State
from prefect.tasks import Task

from pipeline import artifacts, experiment, graph
from pipeline.gpu import lock_gpu, server_unreachable
from pipeline.workspace import Workspace, lock_workspace

NEED_GPU = {"train", "vocoder", "evaluate", "generate"}
HAVE_METRICS = {"vocoder", "evaluate", "generate"}
CACHED = "Cached"  # Prefect's name for the state of a task whose result existed already
RETRY_SECONDS = [10.0, 30.0, 90.0, 270.0]  # before each retry

Tasks = dict[str, PrefectFuture[Any]]


@flow(name="melnet", persist_result=True)
def melnet(
    target: str | None = None, params: dict[str, Any] | None = None, force: bool = False, push: bool = False
) -> State[dict[str, Any]]:
    """Bring a stage and all that it needs up to date; every stage is a task, in graph order.

    Args:
        target: A stage of dvc.yaml, or empty for the whole graph.
        params: Overrides of params.yaml, as {"train.epochs": 5}; they run as a DVC experiment beside the workspace.
        force: Run stages that are up to date too.
        push: Push the stages' outputs to DVC's default remote.
    """
    root = Path.cwd()
    remote = graph.default_remote(root)
    if push and not remote:
        raise ValueError(f"push: {root} has no default remote; name one with: dvc remote add --default NAME URL")
    graph.plan(root, target)  # reports an unknown target before the run waits for the workspace
    with lock_workspace(root, params or {}, run_name(), get_run_logger().info) as workspace:
        plan = graph.plan(workspace.folder, target)
        tasks = submit_tasks(workspace, plan, force, remote if push else "")
        if failure := first_failure(tasks):
            return Failed(message=failure)
        result = versions(root, workspace.folder, plan)
        if params:
            name = f"{flow_run.name}-{flow_run.id[:4]}"
            result["experiment"] = f"{name} ({experiment.record(root, workspace.folder, name, plan)})"
    return completed(result, [stage for stage in plan if tasks[stage].state.name != CACHED])


def submit_tasks(workspace: Workspace, plan: dict[str, list[str]], force: bool, remote: str) -> Tasks:
    """Submit a task for each stage, which waits for those it needs, and with a remote a push after each stage."""
    tasks: Tasks = {}
    for stage, needs in plan.items():
        wait_for = [tasks[name] for name in needs]
        tasks[stage] = run_stage.submit(stage, workspace, force, return_state=False, wait_for=wait_for)
    for stage in plan if remote else ():
        wait_for, name = [tasks[stage]], f"push {stage}"
        tasks[name] = push_stage.submit(stage, workspace.folder, remote, return_state=False, wait_for=wait_for)
    return tasks


def first_failure(tasks: Tasks) -> str:
    """Wait for all tasks; return the message of the first in graph order that did not succeed, empty if all did."""
    for future in tasks.values():
        future.wait()
    return next((f"{future.state.message}" for future in tasks.values() if not future.state.is_completed()), "")


def is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task failed for a cause that may go away by itself."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, graph.Retryable) or server_unreachable(error)


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=is_retryable,
)
def run_stage(stage: str, workspace: Workspace, force: bool) -> State[None]:
    """Run a stage if it is out of date, and publish the versions of its outputs."""
    log, folder = get_run_logger().info, workspace.folder
    reason = "forced" if force else graph.changes(folder, stage)
    if not reason:
        log(f"{stage} is up to date")
        return Completed(name=CACHED, message="up to date")
    log(shorten(f"{stage} is out of date: {reason}", 200))
    group = stage.partition("@")[0]  # train of train@tier-1

    def log_line(line: str) -> None:
        workspace.raise_if_cancelled()  # ends a stage that began just when the run was cancelled
        log(line)

    try:
        with lock_gpu(run_name(), log) if group in NEED_GPU else nullcontext({"CUDA_VISIBLE_DEVICES": ""}) as gpu:
            workspace.raise_if_cancelled()
            variables = {**workspace.environment, **gpu}
            ran = graph.reproduce(folder, stage, force=force, variables=variables, log=log_line)
    except graph.DvcFailed as error:
        # As a state and not as an exception: the stage's own words help, and a traceback of this file does not.
        return Failed(message=str(error))
    except CancelledRun as error:
        return Cancelled(message=str(error))
    outputs = graph.outputs(folder, stage)
    artifacts.publish_versions(folder, stage, outputs, "", run_name())
    if group in HAVE_METRICS:
        plan = graph.plan(folder, stage)
        difference = graph.metrics_difference(folder, plan)
        artifacts.publish_metrics(folder, stage, difference, graph.outputs(folder, *plan), run_name())
    if ran:
        return Completed(message=", ".join(f"{output.path} {output.hash}" for output in outputs))
    return Completed(name=CACHED, message="restored from DVC's cache of earlier runs")


@task(
    task_run_name="push {stage}",
    cache_policy=NO_CACHE,
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
)
def push_stage(stage: str, folder: Path, remote: str) -> None:
    """Push a stage's outputs to the default remote, and publish where they are."""
    graph.push(folder, stage, get_run_logger().info)
    artifacts.publish_versions(folder, stage, graph.outputs(folder, stage), remote, run_name())


def versions(root: Path, folder: Path, stages: Iterable[str]) -> dict[str, Any]:
    """Return the commit, whether files differ from it, the hash of dvc.lock and the metrics of the stages."""
    return {
        "commit": experiment.git(root, "rev-parse", "HEAD").strip(),
        "uncommitted_changes": bool(experiment.git(folder, "status", "--porcelain").strip()),
        "dvc_lock": hashlib.md5((folder / "dvc.lock").read_bytes(), usedforsecurity=False).hexdigest(),
        "metrics": graph.metrics(folder, stages),
    }


def completed(result: dict[str, Any], ran: list[str]) -> State[dict[str, Any]]:
    """Publish and log the result of a successful run, and return it in the run's final state."""
    message = f"ran {', '.join(ran)}" if ran else "everything is up to date: no work was done"
    artifacts.publish_run(flow_run.name, message, result)
    get_run_logger().info("%s; %s", message, ", ".join(f"{name} {value}" for name, value in result.items()))
    named = ", ".join(f"{name} {value}" for name, value in result.items() if name != "metrics")
    return Completed(message=f"{message}; {named}", data=result)


def run_name() -> str:
    """Return the run's name and id, as `prefect flow-run ls` shows them."""
    return f"{flow_run.name} ({flow_run.id})"
