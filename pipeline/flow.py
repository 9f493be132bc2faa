"""The flow `melnet`: brings the stages of dvc.yaml up to date, one task for each, in the folder it is run in."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed, State
from prefect.tasks import Task

from pipeline import artifacts, experiment, graph
from pipeline.gpu import NoAnswer, pinned
from pipeline.workspace import RunEnded, Workspace, held

NEED_GPU = {"train", "evaluate", "generate"}
HAVE_METRICS = {"evaluate", "generate"}
CACHED = "Cached"  # Prefect's name for the state of a task whose result was there already
BACK_OFF = [10.0, 30.0, 90.0, 270.0]  # s before each retry

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
        push: Push what the stages made to DVC's default remote.
    """
    root = Path.cwd()
    remote = graph.default_remote(root)
    if push and not remote:
        raise ValueError(f"push: {root} has no default remote; name one with: dvc remote add --default NAME URL")
    graph.plan(root, target)  # an unknown target is not worth waiting for
    with held(root, params or {}, run_name(), get_run_logger().info) as workspace:
        plan = graph.plan(workspace.folder, target)
        stages, pushes = submit(workspace, plan, force, remote if push else "")
        if failed := first_failure(stages | pushes):
            return Failed(message=failed)
        result = versions(root, workspace.folder, plan)
        if params:
            name = f"{flow_run.name}-{flow_run.id[:4]}"
            result["experiment"] = f"{name} ({experiment.record(root, workspace.folder, name, plan)})"
    return finished(result, [name for name, future in stages.items() if future.state.name != CACHED])


def submit(workspace: Workspace, plan: dict[str, list[str]], force: bool, remote: str) -> tuple[Tasks, Tasks]:
    """Submit a task per stage, each after those that it needs, and with a remote a push after each."""
    stages: Tasks = {}
    pushes: Tasks = {}
    for stage, needs in plan.items():
        stages[stage] = run_stage.submit(
            stage, workspace, force, return_state=False, wait_for=[stages[name] for name in needs]
        )
        if remote:
            pushes[f"push {stage}"] = push_stage.submit(
                stage, workspace.folder, remote, return_state=False, wait_for=[stages[stage]]
            )
    return stages, pushes


def first_failure(tasks: Tasks) -> str:
    """Wait for all tasks; what the first that did not succeed says, empty if all did."""
    for future in tasks.values():
        future.wait()
    # What needs a failed task stays pending, and comes after it.
    return next((f"{future.state.message}" for future in tasks.values() if not future.state.is_completed()), "")


def mendable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a retry can mend what happened: a lock that another process holds, the network, a server that is away."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, graph.Busy | graph.RemoteUnreachable | NoAnswer)


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    retries=len(BACK_OFF),
    retry_delay_seconds=BACK_OFF,
    retry_condition_fn=mendable,
)
def run_stage(stage: str, workspace: Workspace, force: bool) -> State[None]:
    """Run a stage if it is out of date, and publish the versions that it made."""
    log, folder = get_run_logger().info, workspace.folder
    reason = "forced" if force else graph.changes(folder, stage)
    if not reason:
        log(f"{stage} is up to date")
        return Completed(name=CACHED, message="up to date")
    log(shorten(f"{stage} is out of date: {reason}", 200))
    needs_gpu = stage.partition("@")[0] in NEED_GPU

    def tell(line: str) -> None:
        workspace.check()  # what it raises ends the stage
        log(line)

    try:
        with pinned(run_name(), log) if needs_gpu else nullcontext({"CUDA_VISIBLE_DEVICES": ""}) as gpu:
            workspace.check()
            worked = graph.reproduce(folder, stage, force=force, variables={**workspace.mark, **gpu}, log=tell)
            workspace.check()
    except graph.StageFailed as error:
        # A state, not an exception: the stage's own words are what helps, a traceback of this file is not.
        return Failed(message=str(error))
    except RunEnded as error:
        return Cancelled(message=str(error))
    outputs = graph.outputs(folder, stage)
    artifacts.publish_versions(folder, stage, outputs, "", run_name())
    if stage.partition("@")[0] in HAVE_METRICS:
        plan = graph.plan(folder, stage)
        difference = graph.metrics_difference(folder, plan)
        artifacts.publish_metrics(folder, stage, difference, graph.outputs(folder, *plan), run_name())
    if worked:
        return Completed(message=", ".join(f"{output.path} {output.hash}" for output in outputs))
    return Completed(name=CACHED, message="restored from DVC's cache of earlier runs")


@task(
    task_run_name="push {stage}",
    cache_policy=NO_CACHE,
    retries=len(BACK_OFF),
    retry_delay_seconds=BACK_OFF,
    retry_jitter_factor=0.5,
    retry_condition_fn=mendable,
)
def push_stage(stage: str, folder: Path, remote: str) -> None:
    """Push a stage's outputs to the default remote, and publish where they are."""
    graph.push(folder, stage, get_run_logger().info)
    artifacts.publish_versions(folder, stage, graph.outputs(folder, stage), remote, run_name())


def versions(root: Path, folder: Path, stages: Iterable[str]) -> dict[str, Any]:
    """What names the run's versions: the commit, whether files differ from it, the hash of dvc.lock, the metrics."""
    return {
        "commit": experiment.git(root, "rev-parse", "HEAD").strip(),
        "uncommitted_changes": bool(experiment.git(folder, "status", "--porcelain").strip()),
        "dvc_lock": hashlib.md5((folder / "dvc.lock").read_bytes(), usedforsecurity=False).hexdigest(),
        "metrics": graph.metrics(folder, stages),
    }


def finished(result: dict[str, Any], worked: list[str]) -> State[dict[str, Any]]:
    """The final state of a run: its result as data, an artifact and a line in the log."""
    message = f"ran {', '.join(worked)}" if worked else "everything is up to date: no work was done"
    rows = [f"| {name} | `{value}` |" for name, value in result.items() if name != "metrics"]
    metrics = json.dumps(result["metrics"], indent=2)
    table = ["| what | version |", "| --- | --- |", *rows]
    artifacts.publish_run("\n".join([f"# Run {flow_run.name}", "", message, "", *table, "", "```json", metrics, "```"]))
    get_run_logger().info("%s; %s", message, ", ".join(f"{name} {value}" for name, value in result.items()))
    named = ", ".join(
        f"{name} {value}" for name, value in result.items() if name not in ("metrics", "uncommitted_changes")
    )
    return Completed(message=f"{message}; {named}", data=result)


def run_name() -> str:
    """The run's name and identity, as `prefect flow-run ls` shows them."""
    return f"{flow_run.name} ({flow_run.id})"
