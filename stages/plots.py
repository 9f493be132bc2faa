"""Draw the run: plots/training/*.png, plots/spectrograms.png and plots/waveforms.png.

training/*.png have the losses and the learning rate of each epoch, of each tier and of the vocoder's two networks;
spectrograms.png the first samples above recordings of the test split, on one scale; waveforms.png the signals of the
first samples in time.
"""

import time

import numpy as np
import pandas as pd

from melnet.audio.files import read_mono
from melnet.data.dataset import passages
from melnet.data.samples import Samples
from melnet.data.shards import Shards
from stages.command import main
from stages.figures import curves, loss_unit, save, spectrogram_strip, waveforms
from stages.parameters import Params
from stages.paths import METRICS, PLOTS, SAMPLES, SHARDS, SPECTROGRAMS

SHOWN = 4  # spectrograms of a row, and signals, in the pictures


def plots(params: Params) -> None:
    """Write the pictures; raise :class:`MelnetError` if samples or shards are missing or damaged."""
    started = time.monotonic()
    for path in sorted((METRICS / "history").glob("*.csv")):
        history = pd.read_csv(path)
        columns = {str(column): history[column].tolist() for column in history}
        save(curves(columns, loss_unit(path.stem)), PLOTS / "training" / f"{path.stem}.png")
    samples, test = Samples.read(SPECTROGRAMS), Shards(SHARDS / "test")
    log_mels, names, mel = samples.log_mels[:SHOWN], samples.names[:SHOWN], samples.mel
    recorded = np.stack([passage.log_mel for passage in passages(test, SHOWN, log_mels.shape[1])])
    rows = [("generated", log_mels), ("recorded (test split)", recorded)]
    save(spectrogram_strip(rows, mel.edges_hz, mel.seconds_per_frame), PLOTS / "spectrograms.png")
    signals = [read_mono(SAMPLES / f"{name}.wav") for name in names]
    scaled = [signal / max(float(np.abs(signal).max()), 1e-9) for signal in signals]
    save(waveforms(scaled, mel.sample_rate, names), PLOTS / "waveforms.png")
    print(f"{PLOTS}: spectrograms, waveforms and training curves; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(plots, __doc__)
