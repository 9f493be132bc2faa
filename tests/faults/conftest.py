"""A project in which the graph has run undisturbed, and its state before each stage that is to be disturbed.

``make test-faults`` runs all of it; ``FAULTS=bounded`` the part that fits into some minutes.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from ruamel.yaml import YAML

from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
BOUNDED = os.environ.get("FAULTS") == "bounded"
BOUNDED_STAGES = ["downsample", "slice", "train"]
STAGES = BOUNDED_STAGES if BOUNDED else ["downsample", "slice", "pitch", "train", "vocoder", "generate"]
SMALL = {
    "demo": {"minutes": 1.2, "files": 6},
    "slice": {"frames": 20, "block_seconds": 3.0, "shard_rows": 40},
    "model": {"num_components": 2, "tiers": {"tier-1": {"layers": 1, "hidden": 8}}},
    "train": {"window_frames": 20, "windows_per_epoch": 136, "epochs": 8, "batch_size": 4, "lr_halving_epochs": 2},
    "vocoder": {"pitch_steps": 2, "envelope_steps": 2, "hidden": 8, "blocks": 1},
    "generate": {"count": 2, "frames": 30, "measured": 0, "griffin_lim_iterations": 2},
}
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": "",
    "DVC_NO_ANALYTICS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
DVC = [sys.executable, "-m", "dvc"]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(3600))


class Undisturbed(NamedTuple):
    """A finished project, the folders it was copied to before each stage, and the seconds that each stage took."""

    finished: Path
    before: dict[str, Path]
    seconds: dict[str, float]

    def after(self, stage: str) -> Path:
        """Where the project was copied to after a stage: without what the later ones make."""
        return self.finished.with_name(f"after {stage}")


def clone(folder):
    """This project as git has it, changes not yet committed included, with small parameters; DVC without git."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    for name in files:
        if name.startswith(("melnet/", "stages/")) or name in ("dvc.yaml", "params.yaml", "params/none", ".dvcignore"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    edit_params(folder, SMALL)
    subprocess.run([*DVC, "init", "--no-scm", "--quiet"], cwd=folder, env=ENVIRONMENT, check=True)


def repro(folder, stage, **options):
    """Start `dvc repro` of a stage, or of a group of them, in a process group of its own."""
    return subprocess.Popen(
        [*DVC, "repro", stage],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def succeed(folder, stage):
    process = repro(folder, stage)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-3000:]
    return output


def stage_process(dvc, stage):
    """The process of the stage that DVC runs, if it runs one now."""
    try:
        for child in psutil.Process(dvc.pid).children(recursive=True):
            if f"stages.{stage}" in child.cmdline():
                return child
    except psutil.Error:
        pass
    return None


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    finished = folder / "finished"
    clone(finished)
    before, seconds = {}, {}
    order = list(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
    for stage in order[: order.index(STAGES[-1]) + 1]:
        if stage in STAGES:
            before[stage] = folder / f"before {stage}"
            shutil.copytree(finished, before[stage], symlinks=True)
        process = repro(finished, stage)
        while stage_process(process, stage) is None and process.poll() is None:
            time.sleep(0.01)
        started = time.monotonic()
        output, _ = process.communicate()
        assert process.returncode == 0, output[-3000:]
        seconds[stage] = time.monotonic() - started
        if stage in STAGES:
            shutil.copytree(finished, folder / f"after {stage}", symlinks=True)
    return Undisturbed(finished, before, seconds)


def tree(folder):
    """Every file of a project with its content, but for what belongs to DVC and the live logs, which carry times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in (".dvc", "logs") and "__pycache__" not in path.parts
    }
