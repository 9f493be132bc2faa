"""Sing: sample spectrograms from the model in models/ and turn them into audio, samples/ and metrics/generate.json.

samples/*.wav are generate.count samples of generate.frames frames; spectrograms.parquet holds their log-mel values.
The vocoder makes the audio, or Griffin-Lim (generate.inversion); if the vocoder does, griffin-lim/*.wav has the same
samples by Griffin-Lim, to compare. With generate.prime each sample continues that recording: sample-00-joined.wav is
its end and the sample in one, and prime.wav its end alone.

A model that is told what is sung (model.condition_on) also sings what passages of the test split do, asked/*.wav, and,
with generate.score, that score, score/*.wav; score.json has its notes, labels and pitch. A model that reads texts sings
generate.text or, without one, texts of the test split, text/*.wav; alignments.json says when it reads which symbol of
them, and of recordings.

metrics/generate.json compares generate.measured spectrograms, of which the samples are the first, with the test split;
docs/formats.md defines every metric. told_apart says how often classifiers tell samples from recordings (0.5 is
chance), memorised how near the samples come to the train split; nearest.json names the nearest passages. frechet is the
Fréchet distance between Gaussians fitted to frames; for a model of several singers, frechet_by_singer has the distance
of the samples of each singer from the test recordings of each.

voice has the voiced share, the range of the pitch (Hz, 5th, 50th and 95th percentile) and its jitter in cents, and
voice_recorded the same for the test split.

asked says how well the samples of asked/ sing what they were asked to: pitch_accuracy is the share of the frames voiced
in both that lie within 50 cents, voicing_agreement that of all frames which are voiced in both or in neither, and
phoneme_accuracy how often a classifier that learned from the train split hears the phoneme. asked_recorded is the same
for the recordings, by copy synthesis; score, for generate.score.

log_mel_error_generated is the mean absolute difference in nats between the sampled log-mel and that of the audio made
from it, before it is scaled for the WAV file: what the inversion loses. log_mel_error_copy is the same for passages of
the test split (copy synthesis). If the first is much larger, the model samples spectrograms that no signal has.
"""

import json
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from melnet.audio.files import write_wav
from melnet.audio.integrity import UnusableAudio
from melnet.baselines.saved import Baselines
from melnet.comparison import NearestPair, compare, compare_asked
from melnet.data.atomic import atomic_folder, write_json
from melnet.data.dataset import UnknownSinger, passages
from melnet.data.pitch_tracks import read_pitch_tracks
from melnet.data.samples import Samples
from melnet.data.shards import Shards
from melnet.data.texts import TextsError
from melnet.data.tracks import Tracks
from melnet.errors import MelnetError
from melnet.generation import Generated, GenerationConfig, passage_scores, sing_score, sing_texts
from melnet.generation import generate as sample
from melnet.metrics.asked import melody_agreement
from melnet.prime import Prime, read_prime
from melnet.reading import alignments, finished, recorded_alignments, spoken_texts
from melnet.saved import ModelConfig, read_texts, read_tracks
from melnet.score import Score
from melnet.singing import Invert, Model, load
from melnet.vocoder.saved import GRIFFIN_LIM, VOCODER, settings_path
from stages.command import StageError, main
from stages.execution.gpus import keras_device
from stages.parameters import Generate, Params
from stages.paths import METRICS, MODELS, PITCH, SAMPLES, SHARDS, SPECTROGRAMS, TRACKS
from stages.progress import progress

SCORE_SAMPLES = 4  # of the score, and of texts


def generate(params: Params) -> None:
    """Write the samples and the metrics; raise :class:`MelnetError` if the model, shards or prime cannot be used."""
    started = time.monotonic()
    keras_device()
    settings = params.generate
    named = {field.name for field in fields(GenerationConfig)}
    generation = GenerationConfig(**settings.model_dump(include=named))
    model = load(MODELS, vocoder=settings.inversion != GRIFFIN_LIM, warm_up=False, precision=settings.precision)
    train, test = Shards(SHARDS / "train"), Shards(SHARDS / "test")
    prime, score = _prime(settings, model.config), _score(settings, model)
    _check_text(settings, model)
    frame_tracks, texts = read_tracks(model.config, TRACKS), read_texts(model.config, TRACKS)
    singers = _singers(settings, model)
    if settings.inversion != GRIFFIN_LIM and model.vocoder is None:
        raise StageError(f"{settings_path(MODELS)}: no such file; the stage vocoder makes it")
    _announce(settings, model.config)
    by_griffin_lim = model.inverter(GRIFFIN_LIM, settings.seed, settings.griffin_lim_iterations)
    by_vocoder = model.inversion(settings.inversion) == VOCODER
    invert = model.inverter(VOCODER, settings.seed) if by_vocoder else by_griffin_lim
    with progress(total=model.steps(generation.drawn, settings.frames), label="generate", unit="frames") as bar:
        generated = sample(model, generation, invert, singers, prime, bar.update)
    baselines = Baselines.from_dict(json.loads((MODELS / "baselines.json").read_text(encoding="utf-8")))
    tracks = read_pitch_tracks(PITCH)
    found = compare(model.config, generated, invert, baselines, train, test, tracks, settings.seed)
    metrics, sung = found.metrics, {}
    if frame_tracks:
        sung["asked"], of_asked = _asked(model, generation, invert, frame_tracks, train, test)
        metrics |= of_asked
    read: list[dict[str, Any]] = []
    if texts and (wanted := settings.text or spoken_texts(texts, test, SCORE_SAMPLES)):
        sung["text"] = sing_texts(model, generation, invert, wanted, min(SCORE_SAMPLES, settings.count), singers)
        by_name = {f"text-{i:02d}": log_mel for i, log_mel in enumerate(sung["text"].drawn)}
        read = alignments(model, by_name, wanted)
        metrics["text"] = {"finished": finished(read)}
        read += recorded_alignments(model, texts, test, SCORE_SAMPLES)
    if score:
        sung["score"] = sing_score(model, generation, invert, [score] * min(SCORE_SAMPLES, settings.count), singers)
        audio, melody = list(sung["score"].audio), score.tracks.melody
        assert melody is not None  # every score has one
        metrics["score"] = asdict(melody_agreement([melody] * len(audio), audio, model.config.mel))
    with atomic_folder(SAMPLES) as folder:
        _write_samples(folder, model.config, generated, prime, by_griffin_lim if by_vocoder else None, found.nearest)
        for name, samples in sung.items():
            _write_sung(folder / name, name, model.config, samples)
        if score:
            _write_score(folder / "score" / "score.json", score)
        if read:
            write_json(folder / "text" / "alignments.json", {"alignments": read})
    write_json(METRICS / "generate.json", metrics)
    seconds = generated.audio.size / model.sample_rate
    print(f"{SAMPLES}: {settings.count} samples, {seconds:.1f} s of audio; {time.monotonic() - started:.0f} s")


def _asked(
    model: Model, generation: GenerationConfig, invert: Invert, tracks: Tracks, train: Shards, test: Shards
) -> tuple[Generated, dict[str, Any]]:
    """Sing what passages of the test split do; the samples and their metrics."""
    found = passages(test, generation.count, generation.frames)
    singers = [passage.singer for passage in found] if model.singers else []
    asked = sing_score(model, generation, invert, passage_scores(found, tracks), singers)
    frames = len(found[0].log_mel)  # their look-ahead was sung too
    asked = replace(
        asked, drawn=asked.drawn[:, :frames], audio=asked.audio[:, : (frames - 1) * model.config.mel.hop_length]
    )
    return asked, compare_asked(model.config, asked, found, invert, tracks, train, generation.seed)


def _score(settings: Generate, model: Model) -> Score | None:
    """``generate.score``; says if it leaves the range of the voice."""
    if settings.score is None:
        return None
    try:
        return model.read_score(
            settings.score,
            transpose=settings.transpose,
            tempo=settings.tempo,
            on_warning=lambda message: print(f"generate.score: {message}", file=sys.stderr),
        )
    except MelnetError as error:
        raise StageError(f"generate.score: {error}") from error


def _check_text(settings: Generate, model: Model) -> None:
    if settings.text is not None:
        try:
            model.text_frames(settings.text)
        except TextsError as error:
            raise StageError(f"generate.{error}") from error


def _prime(settings: Generate, config: ModelConfig) -> Prime | None:
    if settings.prime is None:
        return None
    try:
        return read_prime(Path(settings.prime), settings.prime_seconds, config.mel, config.frames)
    except UnusableAudio as error:
        raise StageError(f"generate.prime: {error}") from error


def _singers(settings: Generate, model: Model) -> list[str]:
    """The names of ``generate.singer``, all of which the model knows; none for a model without singers."""
    names = [settings.singer] if isinstance(settings.singer, str) else settings.singer or []
    if not model.singers:
        return []
    try:
        model.singer_ids(names, len(names))
    except UnknownSinger as error:
        raise StageError(f"generate.singer: {error}") from error
    return names


def _announce(settings: Generate, config: ModelConfig) -> None:
    seconds = settings.frames * config.mel.seconds_per_frame
    continued = f", continuing {settings.prime}" if settings.prime is not None else ""
    print(
        f"{settings.count} samples of {settings.frames} frames ({seconds:.1f} s), tier by tier{continued}, then their "
        "audio; compiling takes up to a minute",
        flush=True,
    )


def _write_score(path: Path, score: Score) -> None:
    """Write what was asked for: notes, labels, and the pitch of each frame in Hz, 0 where it is not to be voiced."""
    pitch_hz = [round(hz, 1) for hz in score.pitch_hz.tolist()]
    write_json(path, {"notes": score.notes, "labels": score.labels, "pitch_hz": pitch_hz})


def _write_sung(folder: Path, name: str, config: ModelConfig, sung: Generated) -> None:
    """Write samples that sing what they were asked to."""
    names = [f"{name}-{i:02d}" for i in range(len(sung.audio))]
    for name, signal in zip(names, sung.audio, strict=True):
        write_wav(folder / f"{name}.wav", signal, config.mel.sample_rate, normalise=True)
    singers = [config.singers[i] if config.singers else "" for i in sung.singer_ids]
    Samples(names, singers, sung.drawn, config.mel).write(folder / SPECTROGRAMS.name)


def _write_samples(
    folder: Path,
    config: ModelConfig,
    generated: Generated,
    prime: Prime | None,
    other: Invert | None,
    nearest: NearestPair | None,
) -> None:
    """Write audio and spectrograms; with another inversion, the audio that it makes of them to ``griffin-lim/``."""
    names = [f"sample-{i:02d}" for i in range(len(generated.audio))]
    signals = dict(zip(names, generated.audio, strict=True))
    if prime is not None:
        signals["prime"] = prime.signal
        signals |= {f"{name}-joined": signal for name, signal in zip(names, generated.joined, strict=True)}
    singers = [config.singers[i] if config.singers else "" for i in generated.singer_ids]
    for name, signal in signals.items():
        write_wav(folder / f"{name}.wav", signal, config.mel.sample_rate, normalise=True)
    for name, signal in zip(names, other(generated.log_mels, generated.singer_ids) if other else [], strict=False):
        write_wav(folder / "griffin-lim" / f"{name}.wav", signal, config.mel.sample_rate, normalise=True)
    if nearest is not None:
        write_json(folder / "nearest.json", asdict(nearest) | {"sample": names[nearest.sample]})
    Samples(names, singers, generated.log_mels, config.mel).write(folder / SPECTROGRAMS.name)


if __name__ == "__main__":
    main(generate, __doc__)
