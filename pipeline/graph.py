"""Runs DVC in a folder, and reads what its graph holds and what its stages made."""

import codecs
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, Any

import psutil
from dvc.dvcfile import PROJECT_FILE
from dvc.repo import Repo
from dvc.stage import PipelineStage, Stage

from pipeline.process_tree import end

LAST_LINES = 12  # of a failed stage, in the message of its error
PROGRESS_SECONDS = 30.0  # between two lines of a progress bar

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BAR = re.compile(r"\d+%\|")
_LOCKED = re.compile(r"is busy, it is being blocked by|Unable to acquire lock|unable to acquire lock")
_ADVICE = re.compile(
    r"To track the changes with git|\tgit add|To enable auto staging|\tdvc config|Use `dvc push`|Having any"
)
# TensorFlow tells of its start before it heeds TF_CPP_MIN_LOG_LEVEL.
_CHATTER = re.compile(r"WARNING: All log messages before absl::InitializeLog\(\)|I0000 00:00:")
_DVC_SAYS = re.compile(
    r"Running stage |> |ERROR: failed to reproduce|WARNING: stage|Updating lock file|Generating lock file"
)
# What the remotes' libraries (aiohttp, botocore, gcsfs, paramiko) say when it is the network that failed.
_NETWORK = re.compile(
    r"cannot connect|could not connect|connect call failed|connection (was )?(refused|reset|closed|aborted|error|timed)"
    r"|timed? ?out|name or service not known|temporary failure|name resolution|network is unreachable|no route to host"
    r"|server disconnected|service unavailable|slow ?down|too many requests|bad gateway|\b(429|502|503|504)\b",
    re.IGNORECASE,
)


class UnknownTarget(ValueError):
    """A target that names no stage of dvc.yaml."""


class StageFailed(RuntimeError):
    """A stage, or DVC around it, ended with an error; the message has its last lines."""


class Busy(RuntimeError):
    """Another process holds one of DVC's locks; it goes away by itself."""


class PushFailed(RuntimeError):
    """`dvc push` failed for a cause that stays until someone mends it."""


class RemoteUnreachable(RuntimeError):
    """`dvc push` failed on the network."""


@dataclass(frozen=True)
class Output:
    """One version of an output: path, DVC's hash, bytes, files, and whether DVC's cache (not Git) keeps it."""

    path: str
    hash: str
    size: int
    files: int
    cached: bool


def plan(root: Path, target: str | None) -> dict[str, list[str]]:
    """Stages that ``target`` needs, itself included, each with those it depends on; in the order to run them.

    A target is the name of a stage or of a group (``train`` for ``train@tier-1``, ``train@tier-2``, ...); None is all.

    Raises
    ------
    UnknownTarget
        If there is no such stage.
    """
    with Repo(str(root)) as repo:
        graph = repo.index.graph
        needs = {_name(stage): sorted(_name(needed) for needed in graph.successors(stage)) for stage in graph}
    missing = [name for name in needs if target is None or name == target or name.startswith(f"{target}@")]
    if not missing:
        raise UnknownTarget(f"target: {root / 'dvc.yaml'} has no stage {target!r}; it has {', '.join(sorted(needs))}")
    wanted: set[str] = set()
    while missing:
        name = missing.pop()
        if name not in wanted:
            wanted.add(name)
            missing.extend(needs[name])
    order = TopologicalSorter({name: needs[name] for name in sorted(wanted)}).static_order()
    return {name: needs[name] for name in order}


def inputs(root: Path) -> list[str]:
    """Paths, as dvc.yaml has them, that stages depend on and none makes: code and recordings."""
    with Repo(str(root)) as repo:
        made = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
        paths = {dep.fs_path: dep.def_path for stage in repo.index.stages for dep in stage.deps}
    return sorted(name for path, name in paths.items() if not any(Path(path).is_relative_to(out) for out in made))


def outputs(root: Path, *stages: str) -> list[Output]:
    """The versions that dvc.lock has of the outputs of stages."""
    # A stage that runs beside this one may be writing dvc.lock: read it under DVC's lock.
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
        outs = {_name(stage): stage.outs for stage in repo.index.stages}
        return [
            Output(out.def_path, out.hash_info.value or "", out.meta.size or 0, out.meta.nfiles or 1, out.use_cache)
            for stage in stages
            for out in outs[stage]
        ]


def default_remote(root: Path) -> str:
    """Name and address of DVC's default remote; empty if there is none."""
    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote")
        return f"{name} ({repo.config['remote'][name]['url']})" if name else ""


def _name(stage: Stage) -> str:
    """What DVC calls a stage in the folder of its repository; ``addressing`` depends on the current folder."""
    path = Path(stage.path_in_repo).as_posix()
    if not isinstance(stage, PipelineStage):
        return path  # data.dvc
    return stage.name if path == PROJECT_FILE else f"{path}:{stage.name}"


def changes(root: Path, stage: str) -> str:
    """Why DVC would run the stage, in a line; empty if it is up to date."""
    status: dict[str, list[Any]] = json.loads(_read(root, "status", "--json", stage))
    found: list[str] = []
    for change in status.get(stage, []):
        if isinstance(change, str):
            found.append(change)
        else:
            found.extend(f"{kind}: {', '.join(paths)}" for kind, paths in change.items())
    return "; ".join(found)


def reproduce(
    root: Path, stage: str, *, force: bool, variables: Mapping[str, str], log: Callable[[str], object]
) -> bool:
    """Run one stage, every line of it to ``log``; False if DVC restored its outputs from earlier runs instead.

    Raises
    ------
    StageFailed
        With the last lines that the stage printed.
    Busy
        If another DVC holds a lock; nothing was run.
    """
    options = ["--force"] if force else []
    arguments = ["--wait-for-lock", "repro", "--single-item", *options, stage]
    code, lines = _stream(root, arguments, variables, log)
    if code:
        text = "\n".join(lines)
        if _LOCKED.search(text):
            raise Busy(f"{stage}: {text}")
        raise StageFailed(f"{stage}: {_last_words(lines)}")
    return any(line.startswith("Running stage ") for line in lines)


def push(root: Path, stage: str, log: Callable[[str], object]) -> None:
    """Push a stage's outputs to the default remote; raise :class:`RemoteUnreachable` or :class:`PushFailed`."""
    code, lines = _stream(root, ["--wait-for-lock", "push", stage], {}, log)
    if code:
        text = "\n".join(line for line in lines if line.startswith("ERROR:")) or "\n".join(lines)
        raise (RemoteUnreachable if _NETWORK.search(text) else PushFailed)(f"dvc push {stage}: {text}")


def metrics(root: Path, stages: Iterable[str]) -> dict[str, Any]:
    """The metrics files that stages made: path -> content."""
    shown = json.loads(_read(root, "metrics", "show", "--json")).get("", {}).get("data", {})
    made = (output.path for output in outputs(root, *stages))
    return {path: shown[path]["data"] for path in made if "data" in shown.get(path, {})}


def metrics_difference(root: Path, stages: Iterable[str]) -> str:
    """Markdown table of the metrics that stages made, in HEAD and in the workspace."""
    # Those of other stages are left out: as they lie there, they may be of another model.
    made = {output.path for output in outputs(root, *stages)}
    head, rule, rows = _read(root, "metrics", "diff", "--all", "--md").strip().partition("-|\n")
    wanted = [row for row in rows.splitlines() if row.split("|")[1].strip() in made]
    return head + rule + "\n".join(wanted) if wanted else ""


def command(*arguments: str) -> list[str]:
    """The command line of this environment's DVC."""
    return [sys.executable, "-m", "dvc", *arguments]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What DVC and its stages run in: this environment's programs first, output unbuffered."""
    # Stages are `python -m ...`: it has to be the Python that runs this, wherever a worker was started from.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", **(variables or {})}


def _read(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        command("--wait-for-lock", *arguments), cwd=root, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        error = Busy if _LOCKED.search(done.stderr) else StageFailed
        raise error(f"dvc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _stream(
    root: Path, arguments: list[str], variables: Mapping[str, str], log: Callable[[str], object]
) -> tuple[int, list[str]]:
    """Exit status and the last lines of a DVC command; its lines go to ``log`` as they come."""
    lines: deque[str] = deque(maxlen=1000)
    # In the process group of the run: cancelling the run ends the group, and with it DVC and the stage.
    process = subprocess.Popen(
        command(*arguments),
        cwd=root,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        assert process.stdout is not None
        try:
            for line in calmed(terminal_lines(process.stdout)):
                if not (_ADVICE.match(line) or _CHATTER.match(line)):
                    lines.append(line)
                    log(line)
        except BaseException:
            # Such as the log's own end: with its worker killed, a run has nowhere to write. No stage outlives its run.
            end(psutil.Process(process.pid))
            raise
    return process.returncode, list(lines)


def terminal_lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Lines as a terminal would show them, and whether each will be overwritten (a progress bar on its way)."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := os.read(stream.fileno(), 65536):
        *parts, rest = re.split("([\r\n])", rest + decoder.decode(chunk))
        for text, ending in zip(parts[::2], parts[1::2], strict=True):
            if line := _ESCAPE.sub("", text).rstrip():
                yield line, ending == "\r"
    if line := _ESCAPE.sub("", rest).rstrip():
        yield line, False


def calmed(
    lines: Iterator[tuple[str, bool]], clock: Callable[[], float] = time.monotonic, seconds: float = PROGRESS_SECONDS
) -> Iterator[str]:
    """All lines, but of those that are overwritten only one every so many seconds."""
    shown = clock()
    for line, overwritten in lines:
        if overwritten and clock() - shown < seconds:
            continue
        if overwritten:
            shown = clock()
        yield line


def _last_words(lines: list[str]) -> str:
    """What the stage itself said last; what DVC said if the stage said nothing."""
    own = [line for line in lines if not (_DVC_SAYS.match(line) or _BAR.search(line))]
    words = own[-LAST_LINES:] or lines[-LAST_LINES:]
    # A shell that replaces itself with the stage ends by its signal; one that waits for it ends with 128 + signal.
    status = re.search(r"exited with (-?\d+)", "\n".join(lines))
    number = max(-int(status[1]), int(status[1]) - 128) if status else 0
    if number in set(signal.Signals):
        words.append(f"killed by {signal.Signals(number).name}")
    return "\n".join(words)
