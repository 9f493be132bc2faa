"""What the benchmarks share: measuring sides in turn, the memory of a process and its children, claims as JSON."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


@dataclass(frozen=True)
class Claim:
    """A measured figure and the target that it should reach."""

    name: str
    value: float  # median of the rounds
    unit: str
    target: str
    met: bool
    spread: tuple[float, float]  # lowest and highest round

    @classmethod
    def at_least(cls, target: float, name: str, rounds: Sequence[float], unit: str) -> Self:
        """A figure that should be large."""
        value = statistics.median(rounds)
        return cls(name, value, unit, f"at least {target:g}", value >= target, (min(rounds), max(rounds)))

    @classmethod
    def at_most(cls, target: float, name: str, rounds: Sequence[float], unit: str) -> Self:
        """A figure that should be small."""
        value = statistics.median(rounds)
        return cls(name, value, unit, f"at most {target:g}", value <= target, (min(rounds), max(rounds)))


def report(*claims: Claim) -> None:
    """Print the claims in words and, as the last line, in JSON."""
    for claim in claims:
        low, high = claim.spread
        verdict = "met" if claim.met else "NOT MET"
        print(f"{claim.name}: {claim.value:.4g} {claim.unit} ({low:.4g} to {high:.4g}), {claim.target}: {verdict}")
    print(json.dumps([asdict(claim) for claim in claims]), flush=True)


def alternate(rounds: int, *sides: Callable[[], float]) -> list[tuple[float, ...]]:
    """Measure the sides in turn, round after round, so that what else the machine does falls on all of them alike."""
    measured = []
    for number in range(rounds):
        measured.append(tuple(side() for side in sides))
        print(f"round {number + 1}: " + ", ".join(f"{value:.3f}" for value in measured[-1]), flush=True)
    return measured


def seconds(function: Callable[[], object]) -> float:
    """Time that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def python(*arguments: str, cwd: Path, expected: int = 0) -> str:
    """Run this Python as a new process; its standard output."""
    result = subprocess.run([sys.executable, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if result.returncode != expected:
        raise RuntimeError(f"python {' '.join(arguments)}: status {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def peak_memory(*arguments: str, cwd: Path, interval: float = 0.02) -> float:
    """Run this Python as a new process; peak in MB of what it and its children hold together.

    Sampled every ``interval`` seconds. Pages that several processes share count once (PSS).
    """
    with subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        peak, tree = 0, psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, sum(map(_pss, [tree, *_children(tree)])))
            time.sleep(interval)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)}: status {process.returncode}")
    return peak / 1e6


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # it ended between two looks
        return 0
