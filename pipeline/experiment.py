"""Overrides of params.yaml, run as a DVC experiment in a clone beside the workspace, which stays as it is.

DVC's own `exp run --temp` runs a whole graph in one command; here every stage has a task of its own, so clone and
experiment are made here: to DVC, an experiment is a commit on its baseline, below refs/exps. The clone lies beside the
workspace, not inside, so that relative paths out of it (a corpus, a remote) mean the same. One that was cancelled or
failed stays, with its checkpoints, for the next run with the same overrides of the same code.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import graph

PARAMS = "params.yaml"
LOCK = "dvc.lock"
AUTHOR = ["-c", "user.name=melnet", "-c", "user.email=melnet@localhost"]  # workers may have no name of their own


class OverrideError(ValueError):
    """An override of something that params.yaml does not have."""


class GitError(RuntimeError):
    """A git command failed."""


def folder_of(root: Path, overrides: dict[str, Any]) -> Path:
    """Where the experiment runs: the same for the same overrides of the same commit and uncommitted changes."""
    identity = [overrides, git(root, "rev-parse", "HEAD"), git(root, "diff", "--binary", "HEAD")]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return root.with_name(f"{root.name}-experiment-{digest[:8]}")


def prepare(root: Path, folder: Path, overrides: dict[str, Any], log: Callable[[str], object]) -> None:
    """Clone the workspace, uncommitted changes included, and apply the overrides; nothing if it is there already."""
    if folder.exists():
        log(f"continuing in {folder}")
        return
    making = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(making, ignore_errors=True)  # what a killed run left half made
    git(root.parent, "clone", "--quiet", str(root), str(making))
    if difference := git(root, "diff", "--binary", "HEAD"):
        git(making, "apply", "--index", "--whitespace=nowarn", "-", text=difference)
    for name in (".dvc/config.local", LOCK):
        if (root / name).exists() and not (making / name).exists():
            shutil.copy2(root / name, making / name)
    cache = subprocess.run(graph.command("cache", "dir"), cwd=root, capture_output=True, text=True, check=True)
    subprocess.run(graph.command("cache", "dir", "--local", cache.stdout.strip()), cwd=making, check=True)
    override(making / PARAMS, overrides)
    _link_inputs(root, making)
    # Versions that the cache lacks stay missing, and their stages run.
    subprocess.run(graph.command("checkout", "--quiet"), cwd=making, capture_output=True)
    making.rename(folder)
    log(f"experiment in {folder}")


def record(root: Path, folder: Path, name: str, stages: Iterable[str]) -> str:
    """Record the finished experiment in the workspace's repository, remove its clone; the experiment's commit."""
    # Not by `dvc exp run` or `dvc exp save`: both give up where a stage that is not of this run has outputs that DVC's
    # cache lacks, as in a clone that was never pulled.
    baseline = git(folder, "rev-parse", "HEAD").strip()
    kept = [output.path for output in graph.outputs(folder, *stages) if not output.cached]
    git(folder, "add", "--force", "--", LOCK, *kept)
    options = ["--quiet", "--all", "--allow-empty", "--no-verify"]
    git(folder, *AUTHOR, "commit", *options, "--message", f"Experiment {name}")
    reference = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    git(root, "fetch", "--quiet", str(folder), f"+HEAD:{reference}")
    shutil.rmtree(folder)
    return git(root, "rev-parse", reference).strip()


def override(path: Path, overrides: dict[str, Any]) -> None:
    """Set dotted keys of a YAML file; raise :class:`OverrideError` for a key that it does not have."""
    yaml = YAML()  # keeps comments and order: the experiment's diff shows the overrides only
    yaml.width = 4096
    content = yaml.load(path)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = content
        for part in parents:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise OverrideError(f"params: {path.name} has no {key!r} (to be set to {value!r})")
        section[last] = value
    yaml.dump(content, path)


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Standard output of a git command."""
    done = subprocess.run(["git", *arguments], cwd=folder, input=text, capture_output=True, text=True)
    if done.returncode:
        raise GitError(f"git {' '.join(arguments)} in {folder}: {done.stderr.strip()}")
    return done.stdout


def _link_inputs(root: Path, folder: Path) -> None:
    """Links to what stages read and Git does not carry: recordings inside the workspace."""
    for name in graph.inputs(folder):
        source, target = root / name, folder / name
        if source.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
