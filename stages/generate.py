"""Sing: sample spectrograms from the model in models/ and turn them into audio, samples/ and metrics/generate.json.

samples/*.wav are generate.count pieces of generate.frames frames; spectrograms.png shows them beside recordings of the
test split, waveforms.png their signals in time, spectrograms.parquet holds their log-mel values. With generate.prime
each piece continues that recording: sample-00-joined.wav is its end and the sample in one, and prime.wav its end alone.

metrics/generate.json: frechet is the Fréchet distance |μ1 - μ2|² + tr(C1 + C2 - 2 (C1 C2)^½) between Gaussians fitted
to the frames of the generated set and of the test split, a frame being its normalised log-mel and the difference to the
frame before. Beside it frechet_train, the same for the train split (what a perfect model would come to), and
frechet_band_baseline, for samples of the band mixture that `evaluate` fitted (what knowing nothing of time comes to).
A model of several singers has, by singer, the distance of the samples of each to the test recordings of each.

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

from melnet.audio.convert import joined, write_wav
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.baselines import BandMixture
from melnet.data.atomic import written_folder
from melnet.data.dataset import UnknownSinger, passages
from melnet.data.shards import ShardError, Shards
from melnet.prime import Prime, read_prime
from melnet.sampling import Sampler
from melnet.saved import Description, ModelError, load
from stages.command import METRICS, MODELS, SAMPLES, SHARDS, StageError, main, write_json
from stages.distances import distances
from stages.figures import save, spectrogram_strip, waveforms
from stages.parameters import Generate, Params, mel_edges
from stages.progress import progress

SHOWN = 4  # spectrograms of a row, and signals, in the pictures
JOINT_FRAMES = 8  # of the prime that are turned into audio again, to join the sample to it


def generate(params: Params) -> None:
    """Write the samples and the metrics; raise :class:`StageError` if the model, shards or prime cannot be used."""
    started = time.monotonic()
    settings = params.generate
    try:
        description, tiers = load(MODELS)
        train, test = Shards(SHARDS / "train"), Shards(SHARDS / "test")
        singers = _singers(settings, description)
        prime = None
        if settings.prime is not None:
            prime = read_prime(Path(settings.prime), settings.prime_seconds, description)
        normalisation = description.normalisation
        low, high = normalisation.normalise(normalisation.low), normalisation.normalise(normalisation.high)
        _announce(settings, description, prime)
        sampler = Sampler(tiers, low, high, settings.temperature, settings.top_components)
        steps = sampler.steps(settings.count, settings.frames)
        with progress(total=steps, label="generate", unit="frames") as bar:
            sampled = sampler.sample(
                settings.count,
                settings.frames,
                settings.seed,
                singers=singers,
                prime=None if prime is None else normalisation.normalise(prime.log_mel),
                on_frame=bar.update,
            )
        log_mels = normalisation.denormalise(sampled)
        real = np.stack([passage.log_mel for passage in passages(test, settings.count, settings.frames)])
        audio = _audio(log_mels, description, settings)
        _write_samples(description, settings, log_mels, audio, real[:SHOWN], prime, singers)
        errors = {
            "log_mel_error_copy": _error(real, _audio(real, description, settings), description),
            "log_mel_error_generated": _error(log_mels, audio, description),
        }
        band = BandMixture.from_dict(json.loads((MODELS / "baselines.json").read_text(encoding="utf-8"))["band"])
        far = distances(description, sampled, singers, band, train, test)
        write_json(METRICS / "generate.json", far | errors)
    except (ShardError, ModelError, UnknownSinger) as error:
        raise StageError(str(error)) from error
    seconds = audio.size / description.sample_rate
    print(f"{SAMPLES}: {len(audio)} samples, {seconds:.1f} s of audio; {time.monotonic() - started:.0f} s")


def _announce(settings: Generate, description: Description, prime: Prime | None) -> None:
    seconds = settings.frames * description.mel.hop_length / description.sample_rate
    continued = f", continuing {settings.prime}" if prime is not None else ""
    print(
        f"{settings.count} samples of {settings.frames} frames ({seconds:.1f} s), tier by tier{continued}, then "
        f"{settings.griffin_lim_iterations} iterations of Griffin-Lim; compiling takes up to a minute",
        flush=True,
    )


def _singers(settings: Generate, description: Description) -> np.ndarray:
    """The place of each sample's singer among those the model knows, (count,)."""
    known = description.singers
    if not known:
        return np.zeros(settings.count, np.int32)
    asked = settings.singer if settings.singer is not None else known
    names = [asked] if isinstance(asked, str) else asked
    for name in names:
        if name not in known:
            raise StageError(f"generate.singer: the model does not know {name!r}; it knows {', '.join(known)}")
    return np.resize([known.index(name) for name in names], settings.count).astype(np.int32)


def _audio(log_mels: np.ndarray, description: Description, settings: Generate) -> np.ndarray:
    mel, rate = description.mel, description.sample_rate
    return mel_to_audio(log_mels, mel, rate, settings.griffin_lim_iterations, settings.seed)


def _error(log_mels: np.ndarray, audio: np.ndarray, description: Description) -> float:
    """Between log-mels (items, frames, bands) and those of the audio (items, samples) made from them."""
    again = [log_mel(signal, description.mel, description.sample_rate) for signal in audio]
    return log_mel_error(np.stack(again), log_mels)


def _write_samples(
    description: Description,
    settings: Generate,
    log_mels: np.ndarray,
    audio: np.ndarray,
    real: np.ndarray,
    prime: Prime | None,
    singers: np.ndarray,
) -> None:
    count, frames, bands = log_mels.shape
    names = [f"sample-{i:02d}" for i in range(count)]
    with written_folder(SAMPLES) as folder:
        for name, signal in zip(names, audio, strict=True):
            write_wav(folder / f"{name}.wav", signal, description.sample_rate, normalise=True)
        if prime is not None:
            _write_joined(folder, description, settings, names, log_mels, prime)
        values = pa.FixedSizeListArray.from_arrays(pa.array(log_mels.reshape(-1)), frames * bands)
        sung_by = [description.singers[i] for i in singers] if description.singers else [""] * count
        table = pa.table({"sample": names, "singer": sung_by, "mel": values}).replace_schema_metadata(
            {"melnet": json.dumps({"frames": frames, "mel": description.mel.model_dump()})}
        )
        pq.write_table(table, folder / "spectrograms.parquet", compression="zstd")
        _draw(folder, description, [("generated", log_mels[:SHOWN]), ("recorded (test split)", real)], audio[:SHOWN])


def _write_joined(
    folder: Path, description: Description, settings: Generate, names: list[str], log_mels: np.ndarray, prime: Prime
) -> None:
    """The prime, and each sample with the frames before it as audio, faded into the prime."""
    hop, rate = description.mel.hop_length, description.sample_rate
    end = prime.log_mel[-JOINT_FRAMES:]
    with_end = np.concatenate([np.broadcast_to(end, (len(names), *end.shape)), log_mels], axis=1)
    # The last frame of the prime is centred on its last sample, so many hops after the first sample made here.
    overlap = (len(end) - 1) * hop
    write_wav(folder / "prime.wav", prime.signal, rate, normalise=True)
    for name, signal in zip(names, _audio(with_end, description, settings), strict=True):
        both = joined(prime.signal, signal, overlap=overlap, fade=min(2 * hop, overlap // 2))
        write_wav(folder / f"{name}-joined.wav", both, rate, normalise=True)


def _draw(folder: Path, description: Description, rows: list[tuple[str, np.ndarray]], audio: np.ndarray) -> None:
    edges, rate = mel_edges(description.mel), description.sample_rate
    save(spectrogram_strip(rows, edges, description.mel.hop_length / rate), folder / "spectrograms.png")
    titles = [f"sample-{i:02d}" for i in range(len(audio))]
    peak = np.abs(audio).max(axis=1, keepdims=True)
    save(waveforms(list(audio / np.maximum(peak, 1e-9)), rate, titles), folder / "waveforms.png")


if __name__ == "__main__":
    main(generate, __doc__)
