"""Training: it learns, halves its rate on time, keeps its best epoch, and a kill leaves no trace in the result."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from melnet.audio.mel import MelSpec
from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards, ShardSpec, ShardWriter
from melnet.model import kernel_choice
from melnet.model.tier import Tier
from melnet.training.checkpoint import Checkpoint, finished_epochs
from melnet.training.fit import TrainConfig, TrainingData, fit, learning_rate
from melnet.training.loop import ReplayableStream, TrainingDiverged
from tests.weights import fixed

FRAMES, BANDS = 6, 4
MEL = MelSpec(sample_rate=8000, n_fft=512, hop_length=128, n_mels=BANDS, fmin=100.0, fmax=3000.0, floor=1e-5)
CONFIG = TrainConfig(
    epochs=4,
    batch_size=8,
    window_frames=FRAMES,
    windows_per_epoch=48,
    learning_rate=5e-3,
    momentum=0.9,
    lr_halving_epochs=2,
    clip_norm=1.0,
    ema_decay=0.8,
    recompute=False,
    seed=3,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A wave with noise, 44 and 12 slices: something to learn, and a validation batch that is not full."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("shards")
    for split, count in (("train", 44), ("valid", 12)):
        time, band = np.arange(count * FRAMES).reshape(count, FRAMES, 1), np.arange(BANDS)
        x = np.sin(rng.uniform(0, 6.28) + time + 0.5 * band) + 0.1 * rng.normal(size=(count, FRAMES, BANDS))
        with ShardWriter(folder / split, ShardSpec(FRAMES, MEL), 100) as writer:
            writer.write("wave", np.arange(count) * FRAMES, x.astype("float32"))
    zeros, ones = np.zeros(BANDS, np.float32), np.ones(BANDS, np.float32)
    plain = Normalisation(zeros, ones, -ones, ones)
    return TrainingData(Shards(folder / "train"), Shards(folder / "valid"), plain)


def new_tier():
    return fixed(Tier(bands=BANDS, layers=1, hidden=6, num_components=2, min_sigma=0.02))


def trained(data, path, callbacks=(), config=CONFIG, fingerprint="a"):
    tier, checkpoint = new_tier(), Checkpoint(path, fingerprint)
    fit(tier, data, config, checkpoint, callbacks)
    return tier, checkpoint


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return trained(data, tmp_path_factory.mktemp("run") / "tier.npz")


class Kill(keras.callbacks.Callback):
    """Stops a training within an epoch, as a signal would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 2:
            raise KeyboardInterrupt


def test_the_kernel_for_accelerators_gives_the_same_losses(data, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_choice, "accelerated", lambda cell: True)
    _, checkpoint = trained(data, tmp_path / "tier.npz", config=replace(CONFIG, epochs=1))
    [epoch] = checkpoint.history
    assert epoch == pytest.approx(undisturbed[1].history[0], abs=1e-5)


def test_it_learns_and_keeps_the_best_epoch(undisturbed):
    tier, checkpoint = undisturbed
    losses = [epoch["val_loss"] for epoch in checkpoint.history]
    assert [epoch["epoch"] for epoch in checkpoint.history] == [1, 2, 3, 4]
    assert min(losses) < losses[0] - 0.05
    assert checkpoint.best_epoch["val_loss"] == min(losses)
    for kept, weight in zip(checkpoint.best, tier.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)


def test_the_average_is_kept_not_the_last_step(data, undisturbed, tmp_path):
    """With nothing of the old in it, the average is the last step itself. And one that does not save leaves no file."""
    settings = replace(CONFIG, epochs=1, ema_decay=0.0)
    checkpoint = Checkpoint(tmp_path / "tier.npz", "a", saves=False)
    fit(new_tier(), data, settings, checkpoint)
    (last,), averaged = checkpoint.history, undisturbed[1].history[0]
    assert last["loss"] == averaged["loss"]
    assert last["val_loss"] != averaged["val_loss"]
    assert not list(tmp_path.iterdir())


def test_reported_validation_loss_is_that_of_the_slices(data, undisturbed):
    """Though the last batch is filled up: the mean over slices, not over batches."""
    from melnet.backend import compiled
    from melnet.model.mixture import negative_log_likelihood

    tier, checkpoint = undisturbed
    x = data.valid.read_all()
    nll = compiled(lambda x: negative_log_likelihood(x, tier({"x": x}), tier.min_sigma))(x)
    assert float(np.mean(nll)) == pytest.approx(checkpoint.best_epoch["val_loss"], abs=1e-5)


def test_every_validation_is_of_all_slices_once(data, tmp_path):
    """The weights stay as they are, so every epoch has the same loss; there are more batches than Keras reads ahead."""
    still = replace(CONFIG, learning_rate=1e-30, batch_size=2, windows_per_epoch=6, epochs=4)
    _, checkpoint = trained(data, tmp_path / "tier.npz", config=still)
    assert len({epoch["val_loss"] for epoch in checkpoint.history}) == 1


def test_it_ends_when_the_validation_loss_no_longer_falls_and_a_kill_changes_nothing(data, tmp_path):
    """The learning rate is so low that the weights stay as they are, and the first epoch has the lowest loss."""
    still = replace(CONFIG, learning_rate=1e-30, windows_per_epoch=24, epochs=9, patience=3)
    _, whole = trained(data, tmp_path / "whole.npz", config=still)
    assert whole.metrics(9)["best_epoch"] == 1
    assert (whole.metrics(9)["epochs"], whole.metrics(9)["stopped_early"]) == (4, True)
    assert whole.metrics(4)["stopped_early"] is False

    path = tmp_path / "killed.npz"
    with pytest.raises(KeyboardInterrupt):
        trained(data, path, [Kill(2)], still)
    assert len(Checkpoint(path, "a").history) == 2
    _, resumed = trained(data, path, config=still)
    assert resumed.history == whole.history
    # Nor does one go on that was killed after its end.
    _, again = trained(data, path, [Kill(4)], still)
    assert again.history == whole.history


def test_patience_counts_from_the_last_epoch_with_a_lower_loss(tmp_path):
    checkpoint = Checkpoint(tmp_path / "tier.npz", "a")
    finished = []
    assert not checkpoint.finished(9, 2)
    for epoch, loss in enumerate((3.0, 4.0, 2.0, 2.0, 2.5)):
        checkpoint.history.append({"epoch": epoch + 1, "val_loss": loss})
        finished.append(checkpoint.finished(9, 2))
    assert finished == [False, False, False, False, True]
    assert not checkpoint.finished(9, None)
    assert checkpoint.finished(5, None)


def test_an_epoch_is_a_whole_number_of_batches():
    with pytest.raises(ValueError, match="windows_per_epoch: 50 is no multiple of 8 windows"):
        replace(CONFIG, windows_per_epoch=50)


def test_a_replayed_stream_gives_the_batch_that_is_asked_for():
    replayed = ReplayableStream(lambda: iter("abcdef"), 6)
    assert len(replayed) == 6
    assert "".join(replayed[index] for index in (0, 1, 2, 0, 1, 1, 5, 0, 3, 4, 5)) == "abcabbfadef"


class Poison(keras.callbacks.Callback):
    """A weight that is no number, from the third epoch on."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            weight = self.model.trainable_variables[0]
            weight.assign(weight * np.nan)


def test_one_that_diverged_and_was_killed_ends_as_if_undisturbed(data, undisturbed, tmp_path):
    path = tmp_path / "tier.npz"
    with pytest.raises(TrainingDiverged, match=r"became nan at step 1 .* lower train\.learning_rate"):
        trained(data, path, [Poison()])
    good = Checkpoint(path, "a")
    assert good.history == undisturbed[1].history[:2]
    assert all(np.isfinite(array).all() for array in good.best)

    with pytest.raises(KeyboardInterrupt):
        trained(data, path, [Kill(3)])
    assert len(Checkpoint(path, "a").history) == 3

    tier, checkpoint = trained(data, path)
    assert checkpoint.history == undisturbed[1].history
    for resumed, whole in zip(tier.get_weights(), undisturbed[0].get_weights(), strict=True):
        np.testing.assert_array_equal(resumed, whole)


def test_another_fingerprint_starts_afresh(undisturbed):
    path = undisturbed[1].path
    assert len(Checkpoint(path, "a").history) == 4
    assert Checkpoint(path, "b").history == []
    assert (finished_epochs(path, "a"), finished_epochs(path, "b")) == (4, 0)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 broken"])
def test_a_damaged_checkpoint_starts_afresh(tmp_path, content, capsys):
    path = tmp_path / "tier.npz"
    path.write_bytes(content)
    assert Checkpoint(path, "a").history == []
    assert finished_epochs(path, "a") == 0
    assert str(path) in capsys.readouterr().err


def test_rate_is_halved_exactly(undisturbed):
    rates = [epoch["learning_rate"] for epoch in undisturbed[1].history]
    assert rates == pytest.approx([5e-3, 5e-3, 2.5e-3, 2.5e-3])
    settings = replace(CONFIG, learning_rate=7e-4, lr_halving_epochs=10)
    assert [learning_rate(settings, epoch) for epoch in (0, 9, 10, 19, 20, 30)] == [
        7e-4,
        7e-4,
        3.5e-4,
        3.5e-4,
        1.75e-4,
        0.875e-4,
    ]


def test_a_loss_that_is_no_number_stops_at_once(data, tmp_path):
    wild = replace(CONFIG, learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(TrainingDiverged, match=r"at step \d+ .* learning rate 1e\+30"):
        trained(data, tmp_path / "tier.npz", config=wild)
