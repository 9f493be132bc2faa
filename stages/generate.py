"""Sing: sample spectrograms from the model in models/ and turn them into audio, samples/ and metrics/generate.json.

samples/*.wav are generate.count pieces of generate.frames frames; spectrograms.png shows them beside recordings of the
test split, waveforms.png their signals in time, spectrograms.parquet holds their log-mel values.

metrics/generate.json: frechet is the Fréchet distance |μ1 - μ2|² + tr(C1 + C2 - 2 (C1 C2)^½) between Gaussians fitted
to the frames of the generated set and of the test split, a frame being its normalised log-mel and the difference to the
frame before. Beside it frechet_train, the same for the train split (what a perfect model would come to), and
frechet_band_baseline, for samples of the band mixture that `evaluate` fitted (what knowing nothing of time comes to).

log_mel_error_generated is the mean absolute difference in nats between the sampled log-mel and that of the audio made
from it, before it is scaled for the WAV file: what the inversion loses. log_mel_error_copy is the same for passages of
the test split (copy synthesis). Where the first is much larger, the model samples what no signal has.
"""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melnet.audio import write_wav
from melnet.baselines import BandMixture
from melnet.config import Generate, Params, mel_edges
from melnet.dataset import Normalisation, batches, passages
from melnet.figures import save, spectrogram_strip, waveforms
from melnet.files import written_folder
from melnet.inversion import mel_to_audio
from melnet.metrics import FrameStatistics, Gaussian, frame_statistics, frechet_distance
from melnet.sampling import Sampler
from melnet.saved import Description, ModelError, load
from melnet.shards import ShardError, Shards
from melnet.spectrogram import log_mel, log_mel_error
from stages.common import METRICS, MODELS, SAMPLES, SHARDS, StageError, main, write_json

SHOWN = 4  # spectrograms of a row, and signals, in the pictures


def generate(params: Params) -> None:
    """Write the samples and the metrics; raise :class:`StageError` if the model or the shards cannot be used."""
    started = time.monotonic()
    settings = params.generate
    try:
        description, tiers = load(MODELS)
        train, test = Shards(SHARDS / "train"), Shards(SHARDS / "test")
        normalisation = description.normalisation
        low, high = normalisation.normalise(normalisation.low), normalisation.normalise(normalisation.high)
        sampler = Sampler(tiers["tier-1"], settings.temperature, low, high)
        log_mels = normalisation.denormalise(sampler.sample(settings.count, settings.frames, settings.seed))
        real = np.stack([passage.log_mel for passage in passages(test, settings.count, settings.frames)])
        audio = _audio(log_mels, description, settings)
        _write_samples(description, log_mels, audio, real[:SHOWN])
        errors = {
            "log_mel_error_copy": _error(real, _audio(real, description, settings), description),
            "log_mel_error_generated": _error(log_mels, audio, description),
        }
        write_json(METRICS / "generate.json", _distances(normalisation, log_mels, train, test) | errors)
    except (ShardError, ModelError) as error:
        raise StageError(str(error)) from error
    seconds = audio.size / description.sample_rate
    print(f"{SAMPLES}: {len(audio)} samples, {seconds:.1f} s of audio; {time.monotonic() - started:.0f} s")


def _audio(log_mels: np.ndarray, description: Description, settings: Generate) -> np.ndarray:
    mel, rate = description.mel, description.sample_rate
    return mel_to_audio(log_mels, mel, rate, settings.griffin_lim_iterations, settings.seed)


def _error(log_mels: np.ndarray, audio: np.ndarray, description: Description) -> float:
    """Between log-mels (items, frames, bands) and those of the audio (items, samples) made from them."""
    again = [log_mel(signal, description.mel, description.sample_rate) for signal in audio]
    return log_mel_error(np.stack(again), log_mels)


def _write_samples(description: Description, log_mels: np.ndarray, audio: np.ndarray, real: np.ndarray) -> None:
    count, frames, bands = log_mels.shape
    names = [f"sample-{i:02d}" for i in range(count)]
    with written_folder(SAMPLES) as folder:
        for name, signal in zip(names, audio, strict=True):
            write_wav(folder / f"{name}.wav", signal, description.sample_rate, normalise=True)
        values = pa.FixedSizeListArray.from_arrays(pa.array(log_mels.reshape(-1)), frames * bands)
        table = pa.table({"sample": names, "mel": values}).replace_schema_metadata(
            {"melnet": json.dumps({"frames": frames, "mel": description.mel.model_dump()})}
        )
        pq.write_table(table, folder / "spectrograms.parquet", compression="zstd")
        _draw(folder, description, [("generated", log_mels[:SHOWN]), ("recorded (test split)", real)], audio[:SHOWN])


def _draw(folder: Path, description: Description, rows: list[tuple[str, np.ndarray]], audio: np.ndarray) -> None:
    edges, rate = mel_edges(description.mel), description.sample_rate
    save(spectrogram_strip(rows, edges, description.mel.hop_length / rate), folder / "spectrograms.png")
    titles = [f"sample-{i:02d}" for i in range(len(audio))]
    peak = np.abs(audio).max(axis=1, keepdims=True)
    save(waveforms(list(audio / np.maximum(peak, 1e-9)), rate, titles), folder / "waveforms.png")


def _distances(normalisation: Normalisation, log_mels: np.ndarray, train: Shards, test: Shards) -> dict[str, float]:
    reference = _statistics(normalisation, test)
    band = BandMixture.from_dict(json.loads((MODELS / "baselines.json").read_text(encoding="utf-8"))["band"])
    count, frames, _ = log_mels.shape
    sets = {
        "frechet": frame_statistics(normalisation.normalise(log_mels)),
        "frechet_train": _statistics(normalisation, train),
        "frechet_band_baseline": frame_statistics(band.sample((count, frames), np.random.default_rng(0))),
    }
    return {name: frechet_distance(statistics, reference) for name, statistics in sets.items()}


def _statistics(normalisation: Normalisation, shards: Shards) -> Gaussian:
    statistics = FrameStatistics(shards.settings.bands)
    for batch, weights in batches(shards, normalisation, batch_size=512):
        statistics.update(batch[weights > 0])
    return statistics.gaussian()


if __name__ == "__main__":
    main(generate, __doc__)
