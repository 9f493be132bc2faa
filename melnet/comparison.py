"""Comparison of generated spectrograms and their audio with recordings, as ``metrics/generate.json`` has it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import FRAME_SECONDS, pitch_of
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.audio.voice_metrics import voice_statistics
from melnet.baselines.saved import Baselines
from melnet.baselines.vector_autoregression import VectorAutoregression
from melnet.data.dataset import Passage, batches, draw, ids_of, passages, read_stretches, stretches
from melnet.data.shards import HeldShards, Shards
from melnet.data.tracks import FrameTracks, Tracks
from melnet.generation import Generated, Invert
from melnet.metrics.asked import PhonemeClassifier, melody_agreement
from melnet.metrics.frechet import FrameStatistics, Gaussian, frame_statistics, frechet_distance
from melnet.metrics.mmd import mmd
from melnet.metrics.neighbours import memorised, precision_recall
from melnet.metrics.told_apart import FOLDS, ToldApart, told_apart
from melnet.metrics.windows import windows
from melnet.saved import ModelConfig

WINDOW_SECONDS = 1.0
PATCH_SECONDS = 0.2
MAX_FRAMES = 500_000  # of a split that samples are compared with: three hours, which bounds time and memory
NOISE_FRAMES = 100_000  # at most as many train frames fit the noise
PHONEME_FRAMES = 100_000  # at most as many train frames teach the classifier of phonemes


@dataclass(frozen=True)
class NearestPair:
    """The passage of a sample that is nearest to a passage of the train split; ``samples/nearest.json``."""

    sample: int
    """index of the sample"""
    sample_frame: int
    recording: str
    recording_frame: int
    frames: int
    """length of both"""


class Comparison(NamedTuple):
    """How samples compare with recordings."""

    metrics: dict[str, Any]
    """content of ``metrics/generate.json``, see docs/formats.md"""
    nearest: NearestPair | None
    """None if nothing changes in the samples or in the recordings"""


@threadpool_limits.wrap(1, "blas")  # the number of threads can change the last bit
def compare(
    config: ModelConfig,
    generated: Generated,
    invert: Invert,
    baselines: Baselines,
    train: Shards,
    test: Shards,
    tracks: Mapping[str, np.ndarray],
    seed: int,
) -> Comparison:
    """Compare samples with the recordings of the test split.

    Parameters
    ----------
    tracks
        Pitch tracks of the recordings by their names, see :mod:`melnet.audio.pitch`.
    seed
        Of all that is drawn for the comparison.
    """
    train, test = HeldShards(train, MAX_FRAMES), HeldShards(test, MAX_FRAMES)
    splits = {name: read_stretches(split, MAX_FRAMES, seed=seed) for name, split in (("train", train), ("test", test))}
    metrics, nearest = _of_spectrograms(config, generated, splits, train, seed)
    metrics |= _frechet(config, generated, baselines, train, test)
    count, frames = generated.log_mels.shape[:2]
    found = passages(test, count, frames)
    recorded = np.stack([passage.log_mel for passage in found])
    copies = invert(recorded, ids_of([passage.singer for passage in found], config.singers))
    metrics["log_mel_error_copy"] = _inversion_error(recorded, copies, config.mel)
    metrics["log_mel_error_generated"] = _inversion_error(generated.log_mels, generated.audio, config.mel)
    sung = [pitch_of(signal, config.mel.sample_rate) for signal in generated.audio]
    for name, voices in (("voice", sung), ("voice_recorded", split_tracks(test, tracks))):
        metrics[name] = asdict(voice_statistics(voices))
    return Comparison(_without_none(metrics), nearest)


def compare_asked(
    config: ModelConfig,
    asked: Generated,
    found: Sequence[Passage],
    invert: Invert,
    tracks: Tracks,
    train: Shards,
    seed: int,
) -> dict[str, Any]:
    """How well samples sing what they were asked to, beside how well recordings do.

    Parameters
    ----------
    asked
        Samples that sing what passages of the test split do.
    found
        These passages.
    tracks
        What is sung in all recordings.

    Returns
    -------
    ``asked`` of the samples and ``asked_recorded`` of the passages, whose audio is copy synthesis: the fields of
    :class:`melnet.metrics.asked.MelodyAgreement` for a model that is told the melody, and ``phoneme_accuracy`` of a
    classifier that learned from the train split, for one that is told phonemes
    """
    told = config.frame_conditioning
    assert told
    metrics: dict[str, dict[str, Any]] = {"asked": {}, "asked_recorded": {}}
    sung = [_sung(item, tracks) for item in found]
    recorded = np.stack([item.log_mel for item in found])
    if "melody" in told.conditions:
        melodies = [item.inputs()["melody"] for item in sung]
        copies = invert(recorded, ids_of([item.singer for item in found], config.singers), np.stack(melodies))
        for name, audio in (("asked", asked.audio), ("asked_recorded", copies)):
            metrics[name] |= asdict(melody_agreement(melodies, list(audio), config.mel))
    if "phonemes" in told.conditions:
        normalise = config.normalisation.normalise
        classifier = phoneme_classifier(config, train, tracks, seed)
        phonemes = [item.inputs()["phonemes"] for item in sung]
        for name, log_mels in (("asked", asked.drawn), ("asked_recorded", recorded)):
            accuracy = classifier and classifier.accuracy(list(normalise(log_mels)), phonemes)
            metrics[name]["phoneme_accuracy"] = accuracy
    return _without_none(metrics)


def phoneme_classifier(config: ModelConfig, train: Shards, tracks: Tracks, seed: int) -> PhonemeClassifier | None:
    """A classifier of frames that learned the phonemes of the train split; None if none of them is known."""
    labelled = read_stretches(train, PHONEME_FRAMES, seed=seed)
    return PhonemeClassifier.fit(
        [config.normalisation.normalise(item.log_mel) for item in labelled],
        [_sung(item, tracks).inputs()["phonemes"] for item in labelled],
        seed=seed,
        max_frames=PHONEME_FRAMES,
    )


def _sung(passage: Passage, tracks: Tracks) -> FrameTracks:
    """The tracks of the frames of a passage, without look-ahead."""
    frames = len(passage.log_mel)
    return tracks.window(passage.recording, passage.start_frame, frames).map(lambda track: track[:frames])


def _of_spectrograms(
    config: ModelConfig, generated: Generated, splits: dict[str, list[Passage]], train: Shards, seed: int
) -> tuple[dict[str, Any], NearestPair | None]:
    """Metrics of :mod:`melnet.metrics` that compare windows of spectrograms."""
    normalise, seconds = config.normalisation.normalise, config.mel.seconds_per_frame
    window, patch = (max(2, round(length / seconds)) for length in (WINDOW_SECONDS, PATCH_SECONDS))
    samples = list(normalise(generated.drawn))
    pieces = {name: _pieces(found, generated.drawn.shape[1]) for name, found in splits.items()}
    recorded = {name: [normalise(piece.log_mel) for piece in found] for name, (found, _) in pieces.items()}
    groups = {name: found for name, (_, found) in pieces.items()}

    def apart(others: Sequence[np.ndarray], names: Sequence[Hashable] | None = None) -> ToldApart:
        return told_apart(
            others,
            recorded["test"],
            window_frames=window,
            patch_frames=patch,
            seed=seed,
            groups_a=names,
            groups_b=groups["test"],
        )

    slices = normalise(draw(train, NOISE_FRAMES // train.spec.frames, seed=seed))
    noise = VectorAutoregression.fit(slices, max_frames=NOISE_FRAMES, seed=seed)
    noisy = noise.sample(generated.drawn.shape[:2], np.random.default_rng(seed))
    low, high = normalise(config.normalisation.low), normalise(config.normalisation.high)
    ours, theirs = (
        windows(sequences, window, max(1, window // 2), names, seed=seed)
        for sequences, names in ((samples, None), (recorded["test"], groups["test"]))
    )
    metrics: dict[str, Any] = {
        "told_apart": asdict(apart(samples)),
        "told_apart_train": asdict(apart(recorded["train"], groups["train"])),
        "told_apart_noise": asdict(apart(list(np.clip(noisy, low, high)))),
    }
    if distance := mmd(ours, theirs, seed=seed):
        metrics["mmd"] = asdict(distance)
    if shares := precision_recall(ours, theirs, seed=seed):
        metrics |= asdict(shares)
    # Of samples that can be played beside what they are near to.
    whole = [normalise(passage.log_mel) for passage in splits["train"]]
    found = memorised(samples[: len(generated.log_mels)], recorded["test"], whole, window)
    if found is None:
        return metrics, None
    pair = found.nearest
    metrics["memorised"] = {"ratio": found.ratio, "ratio_low": found.ratio_low, "nearest": pair.distance}
    source = splits["train"][pair.train]
    start = source.start_frame + pair.train_frame
    return metrics, NearestPair(pair.generated, pair.generated_frame, source.recording, start, window)


def _pieces(found: list[Passage], frames: int) -> tuple[list[Passage], list[Hashable]]:
    """Passages and their groups: recordings or, where they are few, pieces of them that are as long as samples."""
    names: list[Hashable] = [passage.recording for passage in found]
    if len(set(names)) >= FOLDS:
        return found, names
    pieces = [
        passage._replace(log_mel=piece)
        for passage in found
        for piece in np.array_split(passage.log_mel, max(1, round(len(passage.log_mel) / frames)))
    ]
    return pieces, list(range(len(pieces)))


def _without_none(metrics: dict[str, Any]) -> dict[str, Any]:
    """Without figures that could not be measured."""
    nested = {name: _without_none(value) if isinstance(value, dict) else value for name, value in metrics.items()}
    return {name: value for name, value in nested.items() if value is not None and value != {}}


def _frechet(
    config: ModelConfig, generated: Generated, baselines: Baselines, train: Shards, test: Shards
) -> dict[str, Any]:
    sampled = config.normalisation.normalise(generated.drawn)
    reference, by_singer = recorded_statistics(config, test)
    band_samples = baselines.band.sample(sampled.shape[:2], np.random.default_rng(0))
    metrics: dict[str, Any] = {
        "frechet": frechet_distance(frame_statistics(sampled), reference),
        "frechet_train": frechet_distance(recorded_statistics(config, train)[0], reference),
        "frechet_band_baseline": frechet_distance(frame_statistics(band_samples), reference),
    }
    if config.singers:
        metrics["frechet_by_singer"] = frechet_by_singer(config.singers, sampled, generated.drawn_singer_ids, by_singer)
    return metrics


def split_tracks(shards: Shards, tracks: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The parts of pitch tracks that belong to the slices of a split, one for each run of neighbouring slices."""
    seconds = shards.spec.mel.seconds_per_frame
    spans = [
        (stretch.recording, stretch.first * seconds, (stretch.first + stretch.frames) * seconds)
        for stretch in stretches(shards)
    ]
    return [tracks[name][round(start / FRAME_SECONDS) : round(stop / FRAME_SECONDS)] for name, start, stop in spans]


def frechet_by_singer(
    names: Sequence[str], sampled: np.ndarray, singer_ids: np.ndarray, recorded: dict[int, Gaussian]
) -> dict[str, dict[str, float]]:
    """Fréchet distance of the samples of each singer from the recordings of each, by the names of both.

    Parameters
    ----------
    sampled : (count, frames, bands)
        Normalised log-mel.
    recorded
        See :func:`recorded_statistics`.
    """
    return {
        names[sung]: {
            names[other]: frechet_distance(frame_statistics(sampled[singer_ids == sung]), recordings)
            for other, recordings in sorted(recorded.items())
        }
        for sung in np.unique(singer_ids).tolist()
    }


def recorded_statistics(config: ModelConfig, *splits: Shards) -> tuple[Gaussian, dict[int, Gaussian]]:
    """Statistics of the frames of some splits together, and of those of each singer by singer id."""
    whole = FrameStatistics(config.mel.n_mels)
    by_singer: dict[int, FrameStatistics] = {}
    for batch in (batch for split in splits for batch in batches(split, config.normalisation, 512, config.singers)):
        x, singers = batch.x[batch.weights > 0], batch.singers[batch.weights > 0]
        whole.update(x)
        for singer_id in np.unique(singers).tolist() if config.singers else []:
            by_singer.setdefault(singer_id, FrameStatistics(config.mel.n_mels)).update(x[singers == singer_id])
    return whole.gaussian(), {singer_id: found.gaussian() for singer_id, found in by_singer.items()}


def _inversion_error(log_mels: np.ndarray, audio: np.ndarray, mel: MelSpec) -> float:
    """Mean absolute difference in nats between log-mels and those of the audio made from them."""
    return log_mel_error(np.stack([log_mel(signal, mel) for signal in audio]), log_mels)
