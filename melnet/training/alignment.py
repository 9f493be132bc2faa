"""Learning to read a text along the frames, before the tier that will read it is trained.

The reader is a hidden Markov model of the frames (:mod:`melnet.model.text`) and learns by their likelihood. Below a
whole tier no alignment forms in reasonable time: the stacks predict a frame so well from the frames before that the
text is worth little to them until it is aligned. So the reader learns by itself, in a minute or two, and the tier is
then trained with the weights that it gives.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from melnet import backend
from melnet.backend import Tensor
from melnet.model.text import TextReader
from melnet.model.tier import Inputs, Tier
from melnet.training.loop import ReplayableStream, StopAtNaN

LEARNING_RATE = 3e-3  # of Adam, after a warm-up; it ends with a tenth of this
WARM_UP_STEPS = 30
EARLY_SHARE, EARLY_EVIDENCE = 1 / 3, 0.25
"""in the first third of the steps frames count for a quarter, lest the reader be sure of a wrong alignment early"""


class ReaderModel(backend.Model):
    """A reader whose output, nats of each frame, is its loss."""

    def __init__(self, reader: TextReader) -> None:
        super().__init__(dtype="float32")
        self.reader = reader
        self.built = True

    def call(self, inputs: Inputs) -> Tensor:
        """See :meth:`melnet.model.text.TextReader.nats`."""
        return self.reader.nats(inputs["x"], inputs["text"], inputs["evidence"])


class MeanNats(keras.losses.Loss):
    """The mean over the frames of what the model gives."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.mean(y_pred, axis=-1)


def learn_to_read(
    tier: Tier, batches: Callable[[int], Iterator[tuple[Inputs, Any, Any]]], steps: int, batch_size: int
) -> None:
    """Train the reader of a tier; afterwards it stays as it is.

    Parameters
    ----------
    tier
        A first tier that reads a text, before its own training.
    batches
        Gives the inputs, targets and weights of the batches of an epoch, by its number.
    steps
        Of training; the alignment of the built-in voice forms within 400.
    batch_size
        Windows of a batch.
    """
    assert tier.reader
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / WARM_UP_STEPS, steps, alpha=0.1, warmup_target=LEARNING_RATE, warmup_steps=WARM_UP_STEPS
    )
    tier.reader.trainable = True
    model = ReaderModel(tier.reader)
    model.compile(
        optimizer=keras.optimizers.Adam(rate, beta_2=0.99, global_clipnorm=1.0),
        loss=MeanNats(),
        jit_compile=backend.WHOLE_STEP,
    )
    model.optimizer.build(model.trainable_variables)
    model.parts = backend.parts_of(batch_size)

    def stream() -> Iterator[tuple[Inputs, Any, Any]]:
        endless = itertools.chain.from_iterable(batches(epoch) for epoch in itertools.count())
        for step, (inputs, target, weights) in enumerate(endless):
            evidence = EARLY_EVIDENCE if step < EARLY_SHARE * steps else 1.0
            yield {**inputs, "evidence": np.full(len(weights), evidence, np.float32)}, target, weights

    model.fit(
        ReplayableStream(stream, steps),
        shuffle=False,
        verbose=0,
        callbacks=[StopAtNaN("take another train.seed")],
    )
    tier.reader.trainable = False
