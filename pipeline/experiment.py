"""Runs with overrides of params.yaml: DVC experiments in a clone beside the workspace, which stays as it is.

`dvc exp run --temp` runs a whole graph in one command. Here every stage has its own task, so this module clones the
repository and records the experiment, which for DVC is a commit below refs/exps whose parent is the baseline. The clone
lies beside the workspace and not inside it, so that relative paths out of it (a corpus, a remote) stay valid. A clone
whose run failed or was cancelled stays with its checkpoints, for the next run of the same code with the same overrides.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml

from pipeline import graph

PARAMS = "params.yaml"
LOCK = "dvc.lock"
AUTHOR = ["-c", "user.name=melnet", "-c", "user.email=melnet@localhost"]  # a worker may have no Git identity


def clone_path(root: Path, overrides: dict[str, Any]) -> Path:
    """Return the experiment's folder: the same for equal overrides, commit and uncommitted changes."""
    identity = [overrides, git(root, "rev-parse", "HEAD"), git(root, "diff", "--binary", "HEAD")]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return root.with_name(f"{root.name}-experiment-{digest[:8]}")


def prepare(root: Path, clone: Path, overrides: dict[str, Any], log: Callable[[str], object]) -> None:
    """Clone the workspace with its uncommitted changes and apply the overrides, unless the clone exists already."""
    if clone.exists():
        log(f"continuing in {clone}")
        return
    partial = clone.with_name(f"{clone.name}.part")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    git(root.parent, "clone", "--quiet", str(root), str(partial))
    if difference := git(root, "diff", "--binary", "HEAD"):
        git(partial, "apply", "--index", "--whitespace=nowarn", "-", text=difference)
    for name in (".dvc/config.local", LOCK):
        if (root / name).exists() and not (partial / name).exists():
            shutil.copy2(root / name, partial / name)
    cache = subprocess.run(graph.command("cache", "dir"), cwd=root, capture_output=True, text=True, check=True)
    subprocess.run(graph.command("cache", "dir", "--local", cache.stdout.strip()), cwd=partial, check=True)
    override(partial / PARAMS, overrides)
    for name in graph.inputs(partial):  # recordings inside the workspace, which Git does not carry
        if (root / name).exists() and not (partial / name).exists():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).symlink_to(root / name)
    # The exit status is ignored: outputs that the cache lacks stay missing, and their stages run.
    subprocess.run(graph.command("checkout", "--quiet"), cwd=partial, capture_output=True)
    partial.rename(clone)
    log(f"experiment in {clone}")


def record(root: Path, clone: Path, name: str, stages: Iterable[str]) -> str:
    """Record the finished experiment in the workspace's repository, remove its clone, and return its commit."""
    # `dvc exp run` and `dvc exp save` both fail if a stage outside this run has outputs that DVC's cache lacks, as in a
    # clone that was never pulled.
    baseline = git(clone, "rev-parse", "HEAD").strip()
    in_git = [output.path for output in graph.outputs(clone, *stages) if not output.cached]
    git(clone, "add", "--force", "--", LOCK, *in_git)
    options = ["--quiet", "--all", "--allow-empty", "--no-verify"]
    git(clone, *AUTHOR, "commit", *options, "--message", f"Experiment {name}")
    reference = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    git(root, "fetch", "--quiet", str(clone), f"+HEAD:{reference}")
    shutil.rmtree(clone)
    return git(root, "rev-parse", reference).strip()


def override(path: Path, overrides: dict[str, Any]) -> None:
    """Set dotted keys of a YAML file and keep its comments; raise ValueError for an unknown key."""
    with modify_yaml(path) as content:  # writes the file only if nothing is raised
        for key, value in overrides.items():
            *parents, last = key.split(".")
            section = content
            for part in parents:
                section = section.get(part) if isinstance(section, dict) else None
            if not isinstance(section, dict) or last not in section:
                raise ValueError(f"params: {path.name} has no {key!r} (to be set to {value!r})")
            section[last] = value


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Return the standard output of a git command that reads ``text``."""
    done = subprocess.run(["git", *arguments], cwd=folder, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)} in {folder}: {done.stderr.strip()}")
    return done.stdout
