"""Shared by the benchmarks: timing several sides in turn, memory of a process and its children, claims as JSON."""

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
    """A measured figure and its target."""

    name: str
    value: float  # median of the rounds
    unit: str
    target: str
    met: bool
    spread: tuple[float, float]  # lowest and highest round

    @classmethod
    def at_least(cls, target: float, name: str, rounds: Sequence[float], unit: str) -> Self:
        """A figure that should be large: its median over the rounds reaches the target."""
        value = statistics.median(rounds)
        return cls(name, value, unit, f"at least {target:g}", value >= target, (min(rounds), max(rounds)))

    @classmethod
    def at_most(cls, target: float, name: str, rounds: Sequence[float], unit: str) -> Self:
        """A figure that should be small: its median over the rounds does not exceed the target."""
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
    """Measure the sides in turn, round after round, so that other load on the machine slows all of them alike."""
    measured = []
    for number in range(rounds):
        measured.append(tuple(side() for side in sides))
        print(f"round {number + 1}: " + ", ".join(f"{value:.3f}" for value in measured[-1]), flush=True)
    return measured


def seconds(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def python(*arguments: str, cwd: Path, expected: int = 0) -> str:
    """Run this Python in a new process; return its standard output."""
    result = subprocess.run([sys.executable, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if result.returncode != expected:
        raise RuntimeError(f"python {' '.join(arguments)}: status {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def peak_memory(*arguments: str, cwd: Path, interval: float = 0.02) -> float:
    """Run this Python in a new process; return the peak memory in MB of it and its children together.

    The memory is sampled every ``interval`` seconds. Pages that several processes share count once (PSS).
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
    except psutil.Error:  # the process has ended
        return 0
