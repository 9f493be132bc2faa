"""A corpus whose shards are several times larger than the memory that a stage may take."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from stages.demo_voice.voice import song
from tests.faults.conftest import BOUNDED, ENVIRONMENT, ROOT
from tests.stages.conftest import write_params

RATE = 24000
FILES, MINUTES = (11 if BOUNDED else 33), 10
# Spectrograms of 0.7 GB per hour, thirty times those of the default settings: what is held is the same.
SETTINGS = {
    "mel": {"n_fft": 1024, "hop_length": 32, "n_mels": 64, "fmin": 0.0, "fmax": 12000.0},
    "slice": {"frames": 100},
    "model": {"num_components": 1, "tiers": {"tier-1": {"layers": 1, "hidden": 2}}},
    "train": {"window_frames": 100, "windows_per_epoch": 640, "epochs": 4, "batch_size": 64},
}
LIMIT = 900 * 10**6  # bytes of heap and anonymous maps; what is imported takes half of it
TRAINING_LIMIT = 1500 * 10**6  # on top of what is imported; compiling takes half of it
SLICE = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv.pop()),) * 2)
runpy.run_module("stages.slice", run_name="__main__")
"""
# The limit is set after some steps, since compiling needs more for a moment. Windows are drawn before that and after.
TRAIN = """
import resource, sys
import keras, psutil
import stages.train as stage
from stages.command import main

limit = int(sys.argv.pop())

class Limit(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.most = psutil.Process().memory_info().data + limit

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            resource.setrlimit(resource.RLIMIT_DATA, (self.most, self.most))

fit = stage.fit
stage.fit = lambda *arguments: fit(*arguments[:-1], [*arguments[-1], Limit()])
main(stage.train, stage.__doc__, stage.arguments)
"""


def limited(program, limit, folder):
    result = subprocess.run(
        [sys.executable, "-c", program, str(limit)],
        cwd=folder,
        # Arrow's own pool reserves a gigabyte of addresses at once, most of which it never uses.
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A project after `slice`, and the bytes of its shards."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "corpus").mkdir()
    rng = np.random.default_rng(1)
    sung = np.concatenate(list(song(rng, 60, RATE)))
    sung += rng.normal(0, 1e-3, len(sung))  # silence would be compressed away
    for number in range(FILES):
        with soundfile.SoundFile(folder / f"corpus/{number}.wav", "w", RATE, 1, "PCM_16") as sound:
            for minute in range(MINUTES):
                sound.write(np.roll(sung, 1000 * (MINUTES * number + minute)))
    write_params(folder, SETTINGS | {"corpus": {"path": "corpus"}})
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "stages.downsample"], cwd=folder, env=environment, check=True)
    output = limited(SLICE, LIMIT, folder)
    return folder, output, sum(path.stat().st_size for path in folder.glob("data/shards/*/*.parquet"))


def test_slicing_takes_less_memory_than_its_shards_are(shards):
    _, output, size = shards
    assert output.startswith(f"{FILES} recordings, ")
    assert size > (1 if BOUNDED else 3) * LIMIT


@pytest.mark.skipif(BOUNDED, reason="takes too long for the bounded form")
def test_training_takes_less_memory_than_its_shards_are(shards):
    folder, _, size = shards
    assert size > 1.6 * TRAINING_LIMIT
    (folder / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    for code in ("melnet", "stages"):
        (folder / code).symlink_to(ROOT / code)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "stages.model"], cwd=folder, env=environment, check=True)
    assert "epoch 4 of 4: loss" in limited(TRAIN, TRAINING_LIMIT, folder)
