"""The folder that the stages of a run work in: held by this run alone, and left by its processes when it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from pipeline import experiment
from pipeline.lock import Claim, claimed
from pipeline.process_tree import end, marked


class RunEnded(RuntimeError):
    """The run was cancelled; a stage of it that was about to start must not."""


@dataclass(frozen=True)
class Workspace:
    """A folder, the mark that every process of its stages carries, and whether the run that holds it has ended."""

    folder: Path
    mark: dict[str, str]
    ended: Event = field(default_factory=Event)

    def check(self) -> None:
        """Raise :class:`RunEnded` if the run has."""
        if self.ended.is_set():
            raise RunEnded("the run was cancelled")


@contextmanager
def held(root: Path, overrides: dict[str, Any], run: str, log: Callable[[str], object]) -> Iterator[Workspace]:
    """Wait for the workspace, or with overrides for the experiment's clone of it, and hold it for ``run``."""
    folder = experiment.folder_of(root, overrides) if overrides else root
    claim = Claim(
        f"workspace {folder}", root / ".dvc" / "tmp" / f"{folder.name}.run.lock", "MELNET_WORKSPACE", str(folder)
    )
    with claimed([claim], run, log):
        if overrides:
            experiment.prepare(root, folder, overrides, log)
        workspace = Workspace(folder, claim.mark)
        try:
            yield workspace
        except BaseException:
            # Cancelled. The worker's signal has reached every process of the run, but a stage may ignore it, and one
            # that waited for the GPU gets it now that the other has left it.
            workspace.ended.set()
            end(*marked(claim.variable, claim.value))
            raise
