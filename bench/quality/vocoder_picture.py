"""Spectrograms of a recording of the test split and of its copy syntheses, by the vocoder and by Griffin-Lim.

    python -m bench.quality.vocoder_picture [--project FOLDER] [--output docs/vocoder.png]

FOLDER is one in which the graph has run; without it, this project.
"""

import argparse
from pathlib import Path

import librosa
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from bench.common import ROOT
from melnet.audio.files import read_mono
from melnet.data.dataset import passages
from melnet.data.shards import Shards
from melnet.singing import load
from melnet.vocoder.saved import GRIFFIN_LIM, VOCODER, Inversion
from stages.corpus.manifest import read_manifest
from stages.figures import COLOURS, DPI, save

SECONDS = 4.0
HIGHEST_HZ = 8000
RANGE = -8.0, 4.0  # nats of magnitude


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=ROOT)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/vocoder.png")
    arguments = parser.parse_args()
    model = load(arguments.project / "models", warm_up=False)
    mel = model.config.mel
    [passage] = passages(Shards(arguments.project / "data/shards/test"), 1, round(SECONDS / mel.seconds_per_frame))
    clean = arguments.project / "data/24k"
    files = {row["path"]: row["output"] for row in read_manifest(clean)}
    inversions: dict[str, Inversion] = {"vocoder": VOCODER, "Griffin-Lim": GRIFFIN_LIM}
    copies = {
        title: model.invert(passage.log_mel[None], singer=passage.singer or None, inversion=inversion)[0]
        for title, inversion in inversions.items()
    }
    length = len(copies["vocoder"])
    recorded = read_mono(clean / files[passage.recording], passage.start_frame * mel.hop_length, length)
    save(picture({"recording": recorded, **copies}, mel.sample_rate), arguments.output)
    Image.open(arguments.output).quantize(64).save(arguments.output, optimize=True)  # a third of the bytes


def picture(signals: dict[str, np.ndarray], sample_rate: int) -> Figure:
    """Log magnitude spectrograms side by side, up to 8 kHz, on one scale."""
    figure = Figure(figsize=(12, 3.4), dpi=DPI, layout="constrained")
    columns = figure.subplots(1, len(signals), sharey=True)
    for axes, (title, signal) in zip(columns, signals.items(), strict=True):
        spectrum = np.log(np.abs(librosa.stft(signal, n_fft=1024, hop_length=128)) + 1e-5)
        image = axes.imshow(
            spectrum,
            origin="lower",
            aspect="auto",
            extent=(0, len(signal) / sample_rate, 0, sample_rate / 2 / 1000),
            cmap=COLOURS,
            vmin=RANGE[0],
            vmax=RANGE[1],
        )
        axes.set_ylim(0, HIGHEST_HZ / 1000)
        axes.set_title(title, loc="left")
        axes.set_xlabel("time (s)")
    columns[0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=list(columns), label="log magnitude (nats)", extend="both")
    return figure


if __name__ == "__main__":
    main()
