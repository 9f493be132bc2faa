"""Runs DVC in a folder, and reads its graph, its status and the versions of its outputs."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import psutil
from dvc.dvcfile import PROJECT_FILE
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK
from dvc.stage import PipelineStage, Stage

from pipeline.process_tree import end_process_trees

LAST_LINES = 12  # of a failed stage's output, quoted in the error message

_LOCKED = re.compile(r"is busy, it is being blocked by|Unable to acquire lock|unable to acquire lock")
# DVC's hints to somebody at a terminal, and what TensorFlow logs before it heeds TF_CPP_MIN_LOG_LEVEL.
_NOISE = re.compile(
    r"To track the changes with git|\tgit add|To enable auto staging|\tdvc config|Use `dvc push`"
    r"|WARNING: All log messages before absl::InitializeLog\(\)|I0000 00:00:"
)
_FROM_DVC = re.compile(r"Running stage |> |ERROR: failed to reproduce|WARNING: stage")
# Network errors in the words of the libraries that DVC's remotes use: aiohttp, botocore, gcsfs, paramiko.
_NETWORK = re.compile(
    r"cannot connect|could not connect|connect call failed|connection (was )?(refused|reset|closed|aborted|error|timed)"
    r"|timed? ?out|name or service not known|temporary failure|name resolution|network is unreachable|no route to host"
    r"|server disconnected|service unavailable|slow ?down|too many requests|bad gateway|\b(429|502|503|504)\b",
    re.IGNORECASE,
)


class DvcFailed(RuntimeError):
    """A stage or a DVC command failed, and would fail again."""


class Retryable(RuntimeError):
    """A temporary failure: another process holds a lock of DVC, or a server or the network does not answer."""


@dataclass(frozen=True)
class Output:
    """One version of a stage's output."""

    path: str
    hash: str  # DVC's
    size: int  # bytes
    files: int
    cached: bool  # by DVC; otherwise Git keeps the output


def plan(root: Path, target: str | None) -> dict[str, list[str]]:
    """Return the stages that ``target`` needs and ``target`` itself, in the order to run them, with their dependencies.

    ``target`` names a stage or a group of stages (``train`` for ``train@tier-1``, ``train@tier-2``, ...); None means
    the whole graph.
    """
    with Repo(str(root)) as repo:
        graph = nx.relabel_nodes(repo.index.graph, _name).reverse()  # edges now lead from a stage to its dependents
    found = [name for name in graph if target is None or name == target or name.startswith(f"{target}@")]
    if not found:
        raise ValueError(f"target: {root / 'dvc.yaml'} has no stage {target!r}; it has {', '.join(sorted(graph))}")
    needed = set(found).union(*(nx.ancestors(graph, name) for name in found))
    order = nx.lexicographical_topological_sort(graph.subgraph(needed))
    return {name: sorted(graph.predecessors(name)) for name in order}


def inputs(root: Path) -> list[str]:
    """Return the paths that stages depend on and no stage makes, code and recordings, as dvc.yaml writes them."""
    with Repo(str(root)) as repo:
        made = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
        paths = {dep.fs_path: dep.def_path for stage in repo.index.stages for dep in stage.deps}
    return sorted(name for path, name in paths.items() if not any(Path(path).is_relative_to(out) for out in made))


def outputs(root: Path, *stages: str) -> list[Output]:
    """Return the versions of the stages' outputs that dvc.lock records."""
    # Another stage may be writing dvc.lock at this moment: read it under DVC's lock.
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
        outs = {_name(stage): stage.outs for stage in repo.index.stages}
        return [
            Output(out.def_path, out.hash_info.value or "", out.meta.size or 0, out.meta.nfiles or 1, out.use_cache)
            for stage in stages
            for out in outs[stage]
        ]


def default_remote(root: Path) -> str:
    """Return name and address of DVC's default remote, or an empty string if there is none."""
    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote")
        return f"{name} ({repo.config['remote'][name]['url']})" if name else ""


def _name(stage: Stage) -> str:
    """Return the stage's name relative to the repository (``stage.addressing`` is relative to the current folder)."""
    path = Path(stage.path_in_repo).as_posix()
    if not isinstance(stage, PipelineStage):
        return path  # data.dvc
    return stage.name if path == PROJECT_FILE else f"{path}:{stage.name}"


def remove_broken_lock_table(root: Path, log: Callable[[str], object]) -> None:
    """Remove DVC's table of the paths in use if a killed DVC left it half written: every DVC command would fail."""
    folder = root / ".dvc" / "tmp"
    table = folder / RWLOCK_FILE
    if not table.exists():
        return
    # DVC rewrites the table in place, under this lock.
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder), wait=True):
        try:
            json.loads(table.read_text(encoding="utf-8"))
        except ValueError:
            log(f"removed {table}, which a killed DVC left incomplete")
            table.unlink()


def changes(root: Path, stage: str) -> str:
    """Return in one line why DVC would run the stage; empty if the stage is up to date."""
    reasons: list[str] = []
    for change in json.loads(_read(root, "status", "--json", stage)).get(stage, []):
        if isinstance(change, str):  # "always changed"
            reasons.append(change)
        else:  # {"changed deps": {path: how it changed}}
            reasons += [f"{kind}: {', '.join(paths)}" for kind, paths in change.items()]
    return "; ".join(reasons)


def reproduce(
    root: Path, stage: str, *, force: bool, variables: Mapping[str, str], log: Callable[[str], object]
) -> bool:
    """Run one stage and log every line that it prints.

    Returns
    -------
    bool
        False if DVC restored the outputs from an earlier run with the same inputs instead of running the stage.

    Raises
    ------
    DvcFailed
        With the last lines that the stage printed.
    Retryable
        If another DVC process holds a lock; nothing was run.
    """
    options = ["--force"] if force else []
    code, lines = _stream(root, ["repro", "--single-item", *options, stage], variables, log)
    if code:
        text = "\n".join(lines)
        raise Retryable(f"{stage}: {text}") if _LOCKED.search(text) else DvcFailed(f"{stage}: {_last_words(lines)}")
    return any(line.startswith("Running stage ") for line in lines)


def push(root: Path, stage: str, log: Callable[[str], object]) -> None:
    """Push a stage's outputs to the default remote; raise :class:`Retryable` for network errors, else DvcFailed."""
    code, lines = _stream(root, ["push", stage], {}, log)
    if code:
        text = "\n".join(line for line in lines if line.startswith("ERROR:")) or "\n".join(lines)
        raise (Retryable if _NETWORK.search(text) else DvcFailed)(f"dvc push {stage}: {text}")


def metrics(root: Path, stages: Iterable[str]) -> dict[str, Any]:
    """Return the content of the metrics files that the stages made, by path."""
    shown = json.loads(_read(root, "metrics", "show", "--json")).get("", {}).get("data", {})
    made = (output.path for output in outputs(root, *stages))
    return {path: shown[path]["data"] for path in made if "data" in shown.get(path, {})}


def metrics_difference(root: Path, stages: Iterable[str]) -> str:
    """Return a Markdown table of the stages' metrics in HEAD and in the workspace; empty if there are none."""
    # Files of other stages are left out, since they may lie there from another model.
    made = {output.path for output in outputs(root, *stages)}
    head, rule, rows = _read(root, "metrics", "diff", "--all", "--md").strip().partition("-|\n")
    wanted = [row for row in rows.splitlines() if row.split("|")[1].strip() in made]
    return head + rule + "\n".join(wanted) if wanted else ""


def command(*arguments: str) -> list[str]:
    """Return the command line that runs this environment's DVC."""
    return [sys.executable, "-m", "dvc", *arguments]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for DVC and its stages: this environment's programs first on the path, output unbuffered."""
    # Stages are `python -m ...`, which must be this Python, whatever shell the worker was started from.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", **(variables or {})}


def _read(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        command("--wait-for-lock", *arguments), cwd=root, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        error = Retryable if _LOCKED.search(done.stderr) else DvcFailed
        raise error(f"dvc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _stream(
    root: Path, arguments: list[str], variables: Mapping[str, str], log: Callable[[str], object]
) -> tuple[int, list[str]]:
    """Run a DVC command and log its lines as they come; return its exit status and its last 1,000 lines."""
    lines: deque[str] = deque(maxlen=1000)
    # DVC stays in the run's process group, so that cancelling the run, which ends the group, ends DVC and the stage.
    process = subprocess.Popen(
        command("--wait-for-lock", *arguments),
        cwd=root,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        assert process.stdout is not None
        try:
            for line in map(str.rstrip, process.stdout):
                if line and not _NOISE.match(line):
                    lines.append(line)
                    log(line)
        except BaseException:
            # `log` may raise: when its worker was killed, the run has nowhere to write. No stage outlives its run.
            end_process_trees(psutil.Process(process.pid))
            raise
    return process.returncode, list(lines)


def _last_words(lines: list[str]) -> str:
    """Return the last lines that the stage itself printed, or DVC's if the stage printed none."""
    own = [line for line in lines if not _FROM_DVC.match(line)]
    words = own[-LAST_LINES:] or lines[-LAST_LINES:]
    # The exit status of a killed stage is minus its signal, or 128 plus the signal if a shell waited for the stage.
    status = re.search(r"exited with (-?\d+)", "\n".join(lines))
    number = max(-int(status[1]), int(status[1]) - 128) if status else 0
    if number in set(signal.Signals):
        words.append(f"killed by {signal.Signals(number).name}")
    return "\n".join(words)
