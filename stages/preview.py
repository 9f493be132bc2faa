"""Previews of a training: every few epochs the averaged weights sing, into logs/TIER/previews and TensorBoard.

A tier sings together with the earlier ones, which have to be trained. Spectrograms of a tier that is not the last have
fewer frames and bands; each of their values then stands for its neighbours too. No result depends on this module.
"""

import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import keras
import numpy as np

from melnet.audio.files import write_wav
from melnet.data.atomic import atomic_write, write_json
from melnet.data.dataset import Normalisation
from melnet.model.multiscale import divisors
from melnet.model_files import ModelError
from melnet.saved import ModelConfig, TierConfig, build_tier, load_tier
from melnet.singing import Model, WantedInversion
from melnet.training.checkpoint import Checkpoint
from melnet.vocoder.saved import GRIFFIN_LIM, load_vocoder
from stages.figures import save, spectrogram_strip
from stages.parameters import Generate
from stages.paths import MODELS

COUNT = 2  # samples of a preview
SECONDS = 3.0  # of each
ROWS = "previews.json"
PAGE = jinja2.Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Previews of {{ tier }}</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem }
section { display: grid; gap: .5rem; margin: 2rem 0 }
.samples { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)) }
img, audio { max-width: 100% }
h2, p { margin: 0 }
</style>
<h1>Previews of {{ tier }}</h1>
<p>The averaged weights after an epoch, with the same seed each time. The newest preview comes first.</p>
{% for row in rows | reverse %}<section>
<h2>Epoch {{ row.epoch }}</h2>
<p>Validation loss {{ "%.4f" | format(row.val_loss) }} nats per element; audio by {{ row.inversion }}; \
made in {{ "%.1f" | format(row.seconds) }} s.</p>
<div class="samples">
{% for file in row.audio %}<audio controls preload="none" src="{{ file }}" \
aria-label="Epoch {{ row.epoch }}, sample {{ loop.index }}"></audio>
{% endfor %}</div>
<img src="{{ row.spectrograms }}" alt="Spectrograms of the samples of epoch {{ row.epoch }}" loading="lazy">
</section>
{% endfor %}</html>
""",
    autoescape=True,
)


class Previews(keras.callbacks.Callback):
    """Sings after every few epochs, with the settings of the stage ``generate``.

    A preview that fails is reported and ends no training. It sings on one device, so this is to be made outside
    :func:`melnet.training.devices.on_all_devices`.

    Parameters
    ----------
    name, config, tier_config
        The tier in training, and the model that it belongs to.
    checkpoint
        That of the training; it has the averaged weights and the losses.
    logs
        Folder of the tier's logs.
    settings
        Of the stage ``generate``; prime and lengths are not used.
    every
        Epochs from one preview to the next.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        tier_config: TierConfig,
        checkpoint: Checkpoint,
        logs: Path,
        settings: Generate,
        every: int,
    ) -> None:
        super().__init__()
        self.name, self.config, self.checkpoint, self.settings, self.every = name, config, checkpoint, settings, every
        self.folder, self.events = logs / "previews", logs / "tensorboard/previews"
        self._tier = build_tier(config, name, tier_config)
        self._singing: Model | None = None
        self._inverting = Model(config, [])  # becomes one with a vocoder as soon as there is one

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if (epoch + 1) % self.every == 0:
            try:
                # In a thread of its own: the one that trains may be in a context in which all devices share models.
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(self._preview, epoch + 1).result()
            except Exception as error:  # of any kind, such as too little memory: training goes on
                line = f"{self.name}: no preview of epoch {epoch + 1}: {type(error).__name__}: {error}"
                print(line, file=sys.stderr, flush=True)

    def _preview(self, epoch: int) -> None:
        started = time.monotonic()
        log_mels, audio, inversion = self._sing()
        row: dict[str, Any] = {
            "epoch": epoch,
            "val_loss": self.checkpoint.history[-1]["val_loss"],
            "inversion": inversion,
            "audio": [f"epoch-{epoch:04d}-{number}.wav" for number in range(1, COUNT + 1)],
            "spectrograms": f"epoch-{epoch:04d}.png",
        }
        mel, picture = self.config.mel, self.folder / row["spectrograms"]
        for file, signal in zip(row["audio"], audio, strict=True):
            write_wav(self.folder / file, signal, mel.sample_rate)
        save(spectrogram_strip([(f"epoch {epoch}", log_mels)], mel.edges_hz, mel.seconds_per_frame), picture)
        self._log(epoch, audio, picture)
        rows = [*self._earlier(epoch), {**row, "seconds": time.monotonic() - started}]
        write_json(self.folder / ROWS, {"previews": rows})
        with atomic_write(self.folder / "index.html") as temporary:
            temporary.write_text(PAGE.render(tier=self.name, rows=rows), encoding="utf-8")

    def _earlier(self, epoch: int) -> list[dict[str, Any]]:
        """The previews before an epoch, also from before the training was killed."""
        path = self.folder / ROWS
        rows = json.loads(path.read_text(encoding="utf-8"))["previews"] if path.exists() else []
        return [row for row in rows if row["epoch"] < epoch]

    def _sing(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Log-mel (COUNT, frames, bands), audio (COUNT, samples) with a peak of 0.95, and how it was made."""
        number = self.config.tier_index(self.name).number
        config, frame_step, band_step = first_tiers(self.config, number)
        if self._singing is None:
            earlier = [load_tier(MODELS, self.config, name) for name in self.config.tiers[: number - 1]]
            self._singing = Model(config, [*earlier, self._tier])
        self._tier.set_weights(self.checkpoint.validated)
        settings, singer = self.settings, self.settings.singer if config.singers else None
        log_mels = self._singing.sample(
            round(SECONDS / self.config.mel.seconds_per_frame) // frame_step,
            count=COUNT,
            temperature=settings.temperature,
            top_components=settings.top_components,
            seed=settings.seed,
            singer=singer,
        )
        log_mels = log_mels.repeat(frame_step, axis=1).repeat(band_step, axis=2)
        wanted, how = self._inversion()
        invert = self._inverting.inverter(wanted, settings.seed, settings.griffin_lim_iterations)
        audio = invert(log_mels, self._singing.singer_ids(singer, COUNT))
        peaks = np.abs(audio).max(axis=1, keepdims=True)
        return log_mels, 0.95 * audio / np.where(peaks > 0, peaks, 1), how

    def _inversion(self) -> tuple[WantedInversion, str]:
        """The inversion of the stage ``generate``, or Griffin-Lim until there is a vocoder; and what the page says."""
        wanted: WantedInversion = self.settings.inversion
        if wanted != GRIFFIN_LIM and self._inverting.vocoder is None:
            try:
                vocoder = load_vocoder(MODELS, self.config.mel, self.config.singers)
            except ModelError as error:
                return GRIFFIN_LIM, f"{GRIFFIN_LIM} ({error})"
            self._inverting = Model(self.config, [], *vocoder)
        return wanted, self._inverting.inversion(wanted)

    def _log(self, epoch: int, audio: np.ndarray, picture: Path) -> None:
        """Show audio and spectrograms in TensorBoard, at the step at which Keras shows the losses of the epoch."""
        import tensorflow  # here: under JAX it takes seconds to load

        with tensorflow.device("CPU:0"), tensorflow.summary.create_file_writer(str(self.events)).as_default(epoch - 1):
            rate = self.config.mel.sample_rate
            tensorflow.summary.audio("audio", audio[..., None].astype(np.float32), rate, max_outputs=COUNT)
            image = tensorflow.io.decode_png(picture.read_bytes(), channels=3)
            tensorflow.summary.image("spectrograms", image[None])


def first_tiers(config: ModelConfig, count: int) -> tuple[ModelConfig, int, int]:
    """The model that the first tiers are by themselves, and of how many frames and bands it has one.

    >>> from melnet.audio.mel import MelSpec
    >>> shared = {"frames": 8, "cell": "lstm", "num_components": 10, "min_sigma": 0.02, "singers": []}
    >>> tiers = ["tier-1", "tier-2", "tier-3"]
    >>> config = ModelConfig(MelSpec(), tiers=tiers, normalisation=Normalisation.identity(32), **shared)
    >>> first, frame_step, band_step = first_tiers(config, 2)
    >>> first.tiers, first.mel.n_mels, frame_step, band_step
    (['tier-1', 'tier-2'], 16, 1, 2)
    """
    steps = (all_tiers // own for all_tiers, own in zip(divisors(len(config.tiers)), divisors(count), strict=True))
    frame_step, band_step = steps
    normalisation = config.normalisation
    bands = [normalisation.mean, normalisation.std, normalisation.low, normalisation.high]
    first = replace(
        config,
        mel=replace(config.mel, n_mels=config.mel.n_mels // band_step),
        frames=config.frames // frame_step,
        tiers=config.tiers[:count],
        normalisation=Normalisation(*(values[::band_step] for values in bands)),
    )
    return first, frame_step, band_step


def remove_previews(logs: Path) -> None:
    """Remove the previews of an earlier training."""
    for folder in (logs / "previews", logs / "tensorboard/previews"):
        if folder.exists():
            shutil.rmtree(folder)
