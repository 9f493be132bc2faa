"""Training one tier: optimiser, learning rate, loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from melnet import backend
from melnet.backend import Tensor
from melnet.data.dataset import Batch, Normalisation, ProcessShard, TrainingWindows, batches, steps_per_epoch
from melnet.data.shards import Shards
from melnet.data.texts import Texts
from melnet.data.tracks import CONDITIONS, Tracks
from melnet.model.mixture import MixtureLoss, negative_log_likelihood
from melnet.model.multiscale import TierIndex, inputs_and_target
from melnet.model.precision import Precision
from melnet.model.tier import Tier
from melnet.training.alignment import learn_to_read
from melnet.training.checkpoint import Checkpoint
from melnet.training.loop import ReplayableStream, StopAtNaN


@dataclass(frozen=True)
class TrainConfig:
    """How a tier is trained.

    >>> config = TrainConfig(epochs=20, batch_size=16, lr_halving_epochs=10)
    >>> config.learning_rate
    0.0007
    """

    epochs: int
    batch_size: int
    accumulate: int = 1
    """micro-batches that a step takes one after the other, for less memory; it divides ``batch_size``"""
    window_frames: int = 50
    """frames of a training window"""
    windows_per_epoch: int = 640
    """a multiple of ``batch_size``"""
    patience: int | None = None
    """epochs without a lower validation loss after which training ends; None: never"""
    learning_rate: float = 7e-4
    """of RMSprop, in the first epoch"""
    momentum: float = 0.9
    lr_halving_epochs: int = 10
    """epochs after which the learning rate is halved, again and again"""
    clip_norm: float = 1.0
    """largest global norm of the gradient"""
    ema_decay: float = 0.95
    """decay per step of the moving average of the weights, which is what validation uses and what is kept"""
    recompute: bool = False
    """compute the gates again in the backward pass, see :class:`melnet.model.tier.Tier`"""
    condition_dropout: float = 0.0
    """share of the training windows in which a condition track, or the text, is not known; drawn for each by itself"""
    alignment_steps: int = 0
    """before all epochs, steps in which a tier with a text learns to read it, see :mod:`melnet.training.alignment`"""
    precision: Precision = "float32"
    """of the operands of matrix products, see :mod:`melnet.model.precision`"""
    seed: int = 1
    """of the initial weights and of the windows"""

    def __post_init__(self) -> None:
        if self.windows_per_epoch % self.batch_size:
            raise ValueError(f"windows_per_epoch: {self.windows_per_epoch} is no multiple of {self.batch_size} windows")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} micro-batches do not divide {self.batch_size} windows")

    @property
    def steps_per_epoch(self) -> int:
        return self.windows_per_epoch // self.batch_size


@dataclass(frozen=True)
class TrainingData:
    """The slices that a tier is trained and validated on, and the tier's part in them."""

    train: Shards
    valid: Shards
    normalisation: Normalisation
    index: TierIndex = TierIndex(1, 1)  # noqa: RUF009  # immutable
    """index of the tier; the shards hold whole spectrograms, of which the tier takes its part"""
    singers: Sequence[str] = ()
    """names whose positions are the singer ids"""
    tracks: Tracks | None = None
    """what is sung in the recordings; None for a tier that is not told it"""
    texts: Texts | None = None
    """what is said or sung in them, without times; None for a model that reads none"""
    process_shard: ProcessShard = ProcessShard()  # noqa: RUF009  # immutable
    """this process' rows of every batch, where several processes train together"""

    def windows(self, config: TrainConfig) -> TrainingWindows:
        """The windows of the train split.

        Raises
        ------
        WindowTooLong
            No stretch of a recording has ``config.window_frames`` frames.
        """
        return TrainingWindows(self.train, config.window_frames, self.singers, self.tracks, self.texts)

    def train_batches(
        self, windows: TrainingWindows, config: TrainConfig, epoch: int
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Inputs, target and weights of the training batches of an epoch, counted from 0."""
        size, steps = config.batch_size, config.steps_per_epoch
        drawn = windows.batches(self.normalisation, size, steps, seed=config.seed, epoch=epoch)
        return self._targets(with_dropout(drawn, config.condition_dropout, seed=config.seed, epoch=epoch))

    def valid_batches(self, config: TrainConfig) -> Iterator[tuple[Any, Any, Any]]:
        """Inputs, target and weights of the validation batches, once: all slices, or with texts random windows."""
        if self.texts is None:
            return self._targets(batches(self.valid, self.normalisation, config.batch_size, self.singers, self.tracks))
        steps = self.valid_steps(config)
        return self._targets(
            self._valid_windows(config).batches(self.normalisation, config.batch_size, steps, seed=0, epoch=0)
        )

    def valid_steps(self, config: TrainConfig) -> int:
        """Number of validation batches."""
        items = len(self.valid) if self.texts is None else self._valid_windows(config).utterances
        return steps_per_epoch(items, config.batch_size)

    def _valid_windows(self, config: TrainConfig) -> TrainingWindows:
        return TrainingWindows(self.valid, config.window_frames, self.singers, self.tracks, self.texts)

    def _targets(self, stream: Iterator[Batch]) -> Iterator[tuple[Any, Any, Any]]:
        for batch in map(self.process_shard.rows, stream):
            tracks = batch.tracks.inputs() if batch.tracks else None
            yield *inputs_and_target(batch.x, batch.singers, self.index, tracks, batch.text), batch.weights


def with_dropout(stream: Iterator[Batch], share: float, *, seed: int, epoch: int) -> Iterator[Batch]:
    """Batches in which each condition track is left out in a share of the windows, so that a tier learns to do without.

    >>> from melnet.data.tracks import FrameTracks
    >>> tracks = FrameTracks(None, np.ones((4, 2), np.int32))
    >>> batch = Batch(np.zeros((4, 2, 32)), np.ones(4), np.zeros(4), tracks)
    >>> next(with_dropout(iter([batch]), 0.5, seed=1, epoch=0)).tracks.phonemes.tolist()
    [[0, 0], [1, 1], [1, 1], [0, 0]]
    """
    rng = np.random.default_rng([seed, epoch, 1])  # the windows are drawn from [seed, epoch]
    for batch in stream:
        if tracks := batch.tracks:
            for condition in CONDITIONS:
                tracks = tracks.left_out(condition, rng.random(len(batch.x)) < share)
        text = batch.text
        if text is not None:
            text = np.where(rng.random((len(text), 1)) < share, 0, text)
        yield batch._replace(tracks=tracks, text=text)


def compile_tier(tier: Tier, config: TrainConfig) -> None:
    """Compile a tier with XLA: RMSprop with momentum on the mixture's negative log-likelihood.

    A moving average of the weights is kept beside them. With so large a momentum the last steps circle a minimum, and
    their mean lies nearer to it than any of them.
    """

    def nll(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.mean(negative_log_likelihood(y_true, y_pred, tier.min_sigma), axis=(1, 2))

    tier.compile(
        optimizer=keras.optimizers.RMSprop(
            config.learning_rate,
            momentum=config.momentum,
            global_clipnorm=config.clip_norm,
            use_ema=True,
            ema_momentum=config.ema_decay,
        ),
        loss=MixtureLoss(tier.min_sigma),
        # The loss that Keras reports is a mean over batches. This one is a mean over slices, so that a last batch that
        # is not full counts by the slices in it.
        weighted_metrics=[keras.metrics.MeanMetricWrapper(nll, name="nll")],
        jit_compile=backend.WHOLE_STEP,
    )
    tier.optimizer.build(tier.trainable_variables)
    tier.accumulate = config.accumulate
    tier.parts = backend.parts_of(config.batch_size // config.accumulate)


def fit(
    tier: Tier,
    data: TrainingData,
    config: TrainConfig,
    checkpoint: Checkpoint,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a tier from the checkpoint on; the tier ends with the best epoch's weights.

    Training ends after ``config.epochs`` epochs, or earlier after ``config.patience`` epochs without a lower validation
    loss.

    A tier that was built inside :func:`melnet.training.devices.on_all_devices` divides every batch among the devices,
    which changes results by rounding only.

    Raises
    ------
    TrainingDiverged
        The loss became infinite or NaN.
    WindowTooLong
        No stretch of a recording has ``config.window_frames`` frames.
    """
    from melnet.training import devices  # here, since no result depends on it, and so no stage does

    if tier.reader and config.alignment_steps and not checkpoint.history:
        windows = data.windows(config)
        learn_to_read(tier, partial(data.train_batches, windows, config), config.alignment_steps, config.batch_size)
    compile_tier(tier, config)
    if devices.is_distributed(tier):
        devices.share_training(tier)
    checkpoint.restore(tier)

    def stop_if_finished(epoch: int, logs: dict[str, float]) -> None:
        tier.stop_training = checkpoint.finished(config.epochs, config.patience)

    if not checkpoint.finished(config.epochs, config.patience):
        windows, valid_steps = data.windows(config), data.valid_steps(config)
        tier.fit(
            ReplayableStream(
                # The epoch that the checkpoint has not finished yet.
                lambda: data.train_batches(windows, config, len(checkpoint.history)),
                config.steps_per_epoch,
            ),
            shuffle=False,
            validation_data=ReplayableStream(lambda: data.valid_batches(config), valid_steps),
            initial_epoch=len(checkpoint.history),
            epochs=config.epochs,
            verbose=0,
            callbacks=[
                StopAtNaN("lower train.learning_rate or train.clip_norm"),
                keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate(config, epoch)),
                checkpoint,
                # After `checkpoint`. keras.callbacks.EarlyStopping would count afresh in a training that continues.
                keras.callbacks.LambdaCallback(on_epoch_end=stop_if_finished),
                # After `checkpoint`, which thus finds the averaged weights in the model at the end of a validation.
                keras.callbacks.SwapEMAWeights(),
                *callbacks,
            ],
        )
    tier.set_weights(checkpoint.best)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Learning rate of an epoch counted from 0: halved after every ``lr_halving_epochs`` epochs.

    >>> config = TrainConfig(epochs=20, batch_size=16, learning_rate=7e-4, lr_halving_epochs=10)
    >>> learning_rate(config, 9), learning_rate(config, 10)
    (0.0007, 0.00035)
    """
    return config.learning_rate * 0.5 ** (epoch // config.lr_halving_epochs)
