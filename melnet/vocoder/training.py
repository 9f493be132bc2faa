"""Training the two networks of a vocoder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
from keras import ops

from melnet import backend
from melnet.backend import Tensor
from melnet.training.checkpoint import Checkpoint
from melnet.training.loop import ReplayableStream, StopAtNaN
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.corpus import (
    ENVELOPE_SEGMENT,
    PITCH_BATCH,
    PITCH_SEGMENT,
    Batch,
    Run,
    envelope_batches,
    pitch_batches,
    segment_frames,
    shifted,
)
from melnet.vocoder.filters import SubframeFilters
from melnet.vocoder.losses import PitchLoss, SpectralLoss
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build

EPOCH_STEPS = 100  # between two validations
VALIDATION_STEPS = 8
LEARNING_RATES = {"pitch": 1e-3, "envelopes": 2e-3}
NETWORKS = ("pitch", "envelopes")


class PitchTraining(backend.Model):
    """The pitch network as it is trained."""

    def __init__(self, network: PitchNetwork) -> None:
        super().__init__()
        self.network = network

    def call(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return self.network(inputs)


class EnvelopeTraining(backend.Model):
    """The envelope network as it is trained: to two renderings (batch, 2, samples) with different noise."""

    def __init__(self, network: EnvelopeNetwork, filters: SubframeFilters) -> None:
        super().__init__()
        self.network, self.filters = network, filters

    def call(self, inputs: tuple[Tensor, ...]) -> Tensor:
        *features, pulses, noises = inputs
        subframes = self.filters.apply(self.network(tuple(features)), pulses, noises[:, 0], noises[:, 1])
        return ops.stack([self.filters.overlap_add(frames) for frames in subframes], axis=1)


@dataclass(frozen=True)
class NetworkTraining:
    """One of the two networks with its loss and its batches."""

    model: keras.Model
    loss: keras.losses.Loss
    train: Callable[[Sequence[int]], Iterator[Batch]]
    """seed -> endless batches"""
    valid: Callable[[Sequence[int]], Iterator[Batch]]
    learning_rate: float
    parts: int
    """into which a batch is cut, see :class:`melnet.backend.PartwiseModel`"""


def prepare(name: str, config: VocoderConfig, train: Sequence[Run], valid: Sequence[Run], seed: int) -> NetworkTraining:
    """A network, ``pitch`` or ``envelopes``, with initial weights, and what it is trained on."""
    keras.utils.set_random_seed(seed)
    if name == "pitch":
        copies = shifted(train, config.mel, seed)
        frames = segment_frames([*train, *valid], PITCH_SEGMENT)
        return NetworkTraining(
            PitchTraining(build(PitchNetwork(config), config)),
            PitchLoss(),
            lambda seed: pitch_batches(copies, config, min(frames, segment_frames(copies, frames)), seed),
            lambda seed: pitch_batches(valid, config, segment_frames(valid, frames), seed),
            LEARNING_RATES[name],
            backend.parts_of(PITCH_BATCH),
        )
    frames = min(segment_frames(train, ENVELOPE_SEGMENT), segment_frames(valid, ENVELOPE_SEGMENT))
    return NetworkTraining(
        EnvelopeTraining(build(EnvelopeNetwork(config), config), SubframeFilters(config)),
        SpectralLoss(config.mel.sample_rate, margin=3 * config.subframe_hop),
        lambda seed: envelope_batches(train, config, frames, seed),
        lambda seed: envelope_batches(valid, config, frames, seed),
        LEARNING_RATES[name],
        parts=1,  # transforms, most of the work, use all cores by themselves
    )


def fit(
    training: NetworkTraining,
    steps: int,
    seed: int,
    checkpoint: Checkpoint,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a network from the checkpoint on; it ends with the weights of the epoch with the lowest validation loss.

    Adam's learning rate falls to almost nothing over ``steps``, a multiple of :data:`EPOCH_STEPS`, or fewer.

    Raises
    ------
    TrainingDiverged
        The loss became infinite or NaN.
    """
    model, epoch_steps = training.model, min(steps, EPOCH_STEPS)
    epochs = steps // epoch_steps

    def rate(epoch: int, _: float) -> float:
        warm_up = 0.3 if epoch == 0 else 1.0  # Adam's estimates are rough at first
        return training.learning_rate * warm_up * (1 - epoch / epochs) ** 0.7

    def stream() -> Iterator[Batch]:
        epoch = len(checkpoint.history)  # the one that the checkpoint has not finished yet
        while True:
            batches = training.train([seed, epoch])
            yield from (next(batches) for _ in range(epoch_steps))
            epoch += 1

    model.compile(
        optimizer=keras.optimizers.Adam(training.learning_rate, beta_2=0.99, global_clipnorm=1.0),
        loss=training.loss,
        jit_compile=backend.WHOLE_STEP,
    )
    model.optimizer.build(model.trainable_variables)
    model.parts = training.parts
    checkpoint.restore(model)
    if (first := len(checkpoint.history)) < epochs:
        model.fit(
            ReplayableStream(stream, epoch_steps),
            shuffle=False,
            validation_data=ReplayableStream(lambda: training.valid([0]), VALIDATION_STEPS),
            initial_epoch=first,
            epochs=epochs,
            verbose=0,
            callbacks=[
                StopAtNaN("train again with another vocoder.seed"),
                keras.callbacks.LearningRateScheduler(rate),
                checkpoint,
                *callbacks,
            ],
        )
    if checkpoint.best:
        model.set_weights(checkpoint.best)
