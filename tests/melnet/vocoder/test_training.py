import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from melnet.audio.pitch import LOWEST
from melnet.training.checkpoint import Checkpoint
from melnet.training.loop import TrainingDiverged
from melnet.vocoder import training
from melnet.vocoder.config import BIN_CENTS, HARMONIC_POINTS, NOISE_POINTS, PITCH_BINS
from melnet.vocoder.corpus import choose, envelope_batches, pitch_batches, segment_frames, shifted
from melnet.vocoder.filters import SubframeFilters
from melnet.vocoder.losses import PitchLoss, SpectralLoss

RATE = 24000


def voice(seconds, low=200.0, seed=0):
    """Pulses through two resonances, of a pitch that glides, with breath and a rest."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = low * 2 ** (0.5 * np.sin(1.5 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = sum(
        np.exp(-0.5 * ((k * pitch - 700) / 500) ** 2) * np.sin(k * phase) + 0.05 * np.sin(k * phase)
        for k in range(1, 30)
    )
    sound = 0.1 * sound + 0.003 * rng.standard_normal(len(time))
    sound[RATE : RATE + RATE // 3] *= 0.001
    return sound.astype(np.float32)


@pytest.fixture(scope="module")
def runs(make_runs):
    return make_runs(voice(4), voice(3, 240, seed=1))


def test_runs_have_audio_spectrogram_and_pitch_of_the_same_moments(runs):
    run = runs[0]
    frames = len(run.log_mel)
    assert len(run.samples) == (frames - 1) * 512 + 2 * 2048
    np.testing.assert_array_equal(run.samples[2048 : 2048 + 10000], voice(4)[:10000])
    seconds = np.arange(frames) * 512 / RATE
    expected = np.log(200 * 2 ** (0.5 * np.sin(1.5 * seconds)))
    sung = run.voiced > 0
    assert sung.mean() > 0.7 and not run.voiced[50:58].any()
    assert np.median(np.abs(run.log_pitch - expected)[sung]) < 0.01


def test_shifted_copies_have_shifted_pitch_and_their_own_spectrogram(runs):
    copies = shifted(runs, runs_config(runs).mel, seed=1)
    assert copies[:2] == list(runs) and len(copies) == 2 * 9
    log_pitches = [np.median(copy.log_pitch[copy.voiced > 0]) for copy in copies[2:]]
    assert np.ptp(log_pitches) > 0.3
    for number, copy in enumerate(copies[2:]):
        assert len(copy.log_mel) == len(copy.log_pitch) == len(copy.voiced)
        original = runs[number // 8]
        # How much shorter or longer a copy is says by how much it was shifted.
        shift = np.log(len(original.log_mel) / len(copy.log_mel))
        medians = [np.median(run.log_pitch[run.voiced > 0]) for run in (copy, original)]
        assert medians[0] - medians[1] == pytest.approx(shift, abs=0.03)
        # Its spectrogram is that of a voice at this pitch: the lowest bands, which resolve harmonics, move with it.
        frames = min(len(copy.log_mel), len(original.log_mel))
        moved = np.abs(copy.log_mel[:frames, :8] - original.log_mel[:frames, :8]).mean()
        assert moved > 0.3 or abs(shift) < 0.1


def runs_config(runs):
    from melnet.audio.mel import MelSpec
    from melnet.data.dataset import Normalisation
    from melnet.vocoder.config import VocoderConfig

    return VocoderConfig(MelSpec(), Normalisation.identity(32), singers=[], hidden=12, blocks=1)


def test_batches_depend_on_the_seed_alone(runs, small_config):
    for batches in (pitch_batches, envelope_batches):
        a, b, other = (next(batches(runs, small_config, 20, seed)) for seed in ([1, 2], [1, 2], [1, 3]))
        for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
            np.testing.assert_array_equal(x, y)
        assert np.abs(a[0][0] - other[0][0]).max() > 0


def test_pulses_of_a_batch_lie_at_the_pitch_of_its_audio(runs, small_config):
    """The autocorrelation of both peaks at the same lag."""
    inputs, y, _ = next(envelope_batches(runs, small_config, 40, [1]))
    *_, log_pitch, voiced, pulses, _ = inputs
    checked = 0
    for item in np.flatnonzero(voiced[:, 15:25].all(axis=1)):
        hz = np.exp(log_pitch[item, 20])
        window = slice(20 * 512 + 512 - 1024, 20 * 512 + 512 + 1024)
        for signal in (pulses[item], y[item]):
            part = signal[window] * np.hanning(2048)
            correlation = np.correlate(part, part, "full")[2047:]
            lag = 60 + np.argmax(correlation[60:300])
            assert RATE / lag == pytest.approx(hz, rel=0.05)
            checked += 1
    assert checked >= 4


def test_a_rendering_of_a_batch_lies_in_time_where_its_audio_does(runs, small_config):
    """With flat envelopes, the rendering is the pulses, and it has the length of the target."""
    inputs, y, _ = next(envelope_batches(runs, small_config, 20, [1]))
    filters = SubframeFilters(small_config)
    flat = np.zeros((8, 40, HARMONIC_POINTS + NOISE_POINTS), np.float32)
    flat[..., HARMONIC_POINTS:] = -14
    [subframes] = filters.apply(flat, inputs[4], inputs[5][:, 0])
    rendered = ops.convert_to_numpy(filters.overlap_add(subframes))
    assert rendered.shape == y.shape
    np.testing.assert_allclose(rendered[:, 768:], inputs[4][:, 768 : y.shape[1]], atol=1e-3)


def test_pitch_loss_is_least_for_the_right_bin_and_voicing():
    log_pitch = np.full((1, 5), np.log(LOWEST) + 40 * BIN_CENTS * np.log(2) / 1200)
    target = np.stack([log_pitch, np.array([[1, 1, 1, 0, 0]])], axis=-1).astype(np.float32)

    def loss(bin_, voicing):
        logits = np.zeros((1, 5, PITCH_BINS + 1), np.float32)
        logits[..., bin_] = 5
        logits[..., -1] = voicing
        return float(PitchLoss()(target, logits))

    right = np.array([[4, 4, 4, -4, -4]])
    assert loss(40, right) < loss(41, right) < loss(60, right)
    assert loss(40, right) < loss(40, np.zeros((1, 5))) < loss(40, -right)


def test_spectral_loss_is_least_in_mean_for_the_true_spectrum(rng):
    """Of renderings of noise, those at the level of the recording, which the distance alone would not prefer."""
    loss = SpectralLoss(RATE, margin=768)
    recorded = rng.standard_normal((8, 12000)).astype(np.float32)
    noises = rng.standard_normal((8, 2, 12000)).astype(np.float32)
    by_level = {level: float(loss(recorded, noises * np.exp(level))) for level in (-0.4, -0.2, 0.0, 0.2, 0.4)}
    assert min(by_level, key=by_level.get) == 0.0
    assert float(loss(recorded, np.stack([recorded, recorded], axis=1))) == pytest.approx(0, abs=1e-4)


def trained(name, config, runs, path, steps=200, stop_after=None):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 == stop_after:
                raise KeyboardInterrupt

    prepared = training.prepare(name, config, runs, runs[:1], seed=1)
    checkpoint = Checkpoint(path, "same", metric="loss")
    training.fit(prepared, steps, 1, checkpoint, [Stop()])
    return checkpoint, prepared.model.network.get_weights()


@pytest.mark.parametrize("name", training.NETWORKS)
def test_training_learns_and_resumes_to_the_same_bytes(name, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EPOCH_STEPS", 4)
    monkeypatch.setattr(training, "VALIDATION_STEPS", 1)
    config = runs_config(runs)
    straight, expected = trained(name, config, runs, tmp_path / "a.npz", steps=16)
    losses = [epoch["val_loss"] for epoch in straight.history]
    assert len(losses) == 4 and min(losses) < losses[0]
    with pytest.raises(KeyboardInterrupt):
        trained(name, config, runs, tmp_path / "b.npz", steps=16, stop_after=2)
    resumed, weights = trained(name, config, runs, tmp_path / "b.npz", steps=16)
    assert resumed.history == straight.history
    for a, b in zip(expected, weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_not_a_number_ends_the_training(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EPOCH_STEPS", 4)
    broken = [dataclasses.replace(run, log_mel=run.log_mel * np.float32(np.nan)) for run in runs]
    with pytest.raises(TrainingDiverged, match=r"vocoder\.seed"):
        trained("pitch", runs_config(runs), broken, tmp_path / "a.npz", steps=4)


def test_unvoiced_recordings_train_without_error(make_runs, tmp_path, monkeypatch, rng):
    monkeypatch.setattr(training, "EPOCH_STEPS", 2)
    noise = make_runs(0.1 * rng.standard_normal(2 * RATE))
    assert not noise[0].voiced.any()
    for name in training.NETWORKS:
        checkpoint, weights = trained(name, runs_config(noise), noise, tmp_path / f"{name}.npz", steps=2)
        assert np.isfinite(checkpoint.best_epoch["val_loss"]) and all(np.isfinite(w).all() for w in weights)


def test_short_recordings_give_short_segments(make_runs):
    short = make_runs(voice(0.5))
    assert segment_frames(short, 40) == len(short[0].log_mel) == 23


def test_more_recordings_than_fit_are_left_out(small_config):
    from melnet.data.dataset import Stretch

    found = [Stretch(f"{i}.wav", "", 0, 2813) for i in range(10)]  # a minute each
    chosen = choose(found, small_config.mel, minutes=3.0, seed=1)
    assert len(chosen) == 3 and chosen == choose(found, small_config.mel, minutes=3.0, seed=1)
    assert chosen != choose(found, small_config.mel, minutes=3.0, seed=2)
    assert sorted(choose(found, small_config.mel, minutes=60.0, seed=1)) == sorted(found)
