"""Killed at any moment, a stage loses nothing: the next `dvc repro` ends with the files of an undisturbed run."""

import os
import random
import shutil
import signal
import time
from collections import Counter

import psutil
import pytest

from .conftest import BOUNDED, STAGES, repro, stage_process, succeed, tree

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
# Rounds for each stage, and kills of a round before it may end; those of TensorFlow take half a minute to get started.
ROUNDS = {
    "downsample": (12, 1),
    "slice": (12, 1),
    "pitch": (6, 1),
    "train": (4, 3),
    "vocoder": (3, 2),
    "generate": (3, 2),
}
if BOUNDED:
    ROUNDS = {"downsample": (2, 1), "slice": (2, 1), "train": (1, 2)}
CASES = [(stage, number) for stage in STAGES for number in range(ROUNDS[stage][0])]
done = Counter()


def ignore_nothing():
    """A shell starts what it puts in the background deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def epochs(folder):
    """Changes with each finished epoch."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("checkpoints/*") if path.name[0] != "."}


def kill(folder, stage, seconds, rng):
    """Start the stage and send a signal at a random moment; whether it came in time, and how far training was."""
    sent, whole_group = rng.choice(SIGNALS), rng.random() < 0.5
    process = repro(folder, stage, preexec_fn=ignore_nothing)
    while (victim := stage_process(process, stage)) is None and process.poll() is None:
        time.sleep(0.01)
    if stage == "train" and rng.random() < 0.7:
        # Most of its time goes into getting started: wait for the end of an epoch to hit the training itself.
        begun = epochs(folder)
        while epochs(folder) == begun and process.poll() is None:
            time.sleep(0.005)
        end = time.monotonic() + rng.uniform(0, 0.1 * seconds)
    else:
        end = time.monotonic() + rng.uniform(0, seconds)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    alive = process.poll() is None and (whole_group or (victim is not None and victim.is_running()))
    try:
        if whole_group:
            os.killpg(process.pid, sent)  # Ctrl-C, a scheduler that cancels, a machine that goes down
        elif victim is not None:
            victim.send_signal(sent)  # the kernel, for memory
    except (ProcessLookupError, psutil.NoSuchProcess):
        alive = False
    process.communicate(timeout=120)
    if victim is not None:
        psutil.wait_procs([victim], timeout=120)
        assert not victim.is_running()
    if alive and process.returncode != 0:
        done[stage, sent.name, "DVC and stage" if whole_group else "stage"] += 1
        done["with temporary files"] += any(folder.rglob(".tmp-*"))
        done["after an epoch"] += bool(epochs(folder))
        return True
    return False


@pytest.mark.parametrize(("stage", "number"), CASES)
def test_a_killed_stage_ends_as_if_undisturbed(undisturbed, tmp_path, stage, number):
    rng = random.Random(f"{stage} {number}")
    folder = tmp_path / "project"
    shutil.copytree(undisturbed.before[stage], folder, symlinks=True)
    wanted = ROUNDS[stage][1]
    for _ in range(4 * wanted):  # some moments come too late
        wanted -= kill(folder, stage, undisturbed.seconds[stage], rng)
        if not wanted:
            break
        if (folder / "dvc.lock").read_text() == undisturbed.after(stage).joinpath("dvc.lock").read_text():
            shutil.rmtree(folder)
            shutil.copytree(undisturbed.before[stage], folder, symlinks=True)
    succeed(folder, stage)
    expected, found = tree(undisturbed.after(stage)), tree(folder)
    assert found.keys() == expected.keys()  # nothing missing, nothing stray
    assert [name for name in expected if found[name] != expected[name]] == []


def test_there_were_enough_kills():
    kills = {key: count for key, count in done.items() if isinstance(key, tuple)}
    lines = [f"{' '.join(key)}: {count}" for key, count in sorted(kills.items())]
    print(*lines, *(f"{key}: {done[key]}" for key in ("with temporary files", "after an epoch")), sep="\n")
    assert sum(kills.values()) >= (5 if BOUNDED else 30)
    assert {stage for stage, _, _ in kills} == set(STAGES)
