"""The folder in which the stages of a run work: locked for this run, and free of its processes when it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from prefect.exceptions import CancelledRun

from pipeline import experiment, graph
from pipeline.lock import Resource, lock_any
from pipeline.process_tree import end_process_trees, processes_with


@dataclass(frozen=True)
class Workspace:
    """A folder, the environment variable of every stage in it, and whether the run that works in it was cancelled."""

    folder: Path
    environment: dict[str, str]
    cancelled: Event = field(default_factory=Event)

    def raise_if_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise CancelledRun("the run was cancelled")


@contextmanager
def lock_workspace(
    root: Path, overrides: dict[str, Any], run: str, log: Callable[[str], object]
) -> Iterator[Workspace]:
    """Wait for the workspace ``root``, or with overrides for the experiment's clone of it, and lock it for ``run``."""
    folder = experiment.clone_path(root, overrides) if overrides else root
    lock_file = root / ".dvc" / "tmp" / f"{folder.name}.run.lock"
    resource = Resource(f"workspace {folder}", lock_file, "MELNET_WORKSPACE", str(folder))
    with lock_any([resource], run, log):
        if overrides:
            experiment.prepare(root, folder, overrides, log)
        graph.remove_broken_lock_table(folder, log)
        workspace = Workspace(folder, resource.environment)
        try:
            yield workspace
        except BaseException:
            # The run was cancelled. The worker has signalled every process of the run, but a stage may ignore that, and
            # a stage that waited for the GPU gets it as soon as the other stage ends.
            workspace.cancelled.set()
            end_process_trees(*processes_with(resource.variable, resource.value))
            raise
