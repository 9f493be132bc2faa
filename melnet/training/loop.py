"""Parts that every training with Keras' ``fit`` shares: a stream of batches that starts over, and an end at NaN."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops


class TrainingDiverged(RuntimeError):
    """The loss became infinite or NaN."""


class ReplayableStream(keras.utils.PyDataset):
    """A stream of batches that starts over whenever Keras asks for the first one.

    Keras makes a new iterator for every validation, and looks at a batch in advance on several devices. From a
    generator it would lose the batches that the previous iterator had read ahead.

    Parameters
    ----------
    start
        Starts the stream.
    count
        Number of batches.

    >>> stream = ReplayableStream(lambda: iter("abc"), count=3)
    >>> stream[0], stream[1], stream[0]
    ('a', 'b', 'a')
    """

    def __init__(self, start: Callable[[], Iterator[Any]], count: int) -> None:
        super().__init__()
        self._start, self._count = start, count
        self._next, self._stream = 0, start()
        self._lock = threading.Lock()  # an abandoned iterator may still be reading ahead

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        with self._lock:
            if index != self._next:
                self._stream = itertools.islice(self._start(), index, None)
            self._next = index + 1
            return next(self._stream)


class StopAtNaN(keras.callbacks.Callback):
    """Ends a training whose loss is no longer finite; the last checkpoint stays.

    Parameters
    ----------
    advice
        Ends the message of the error.
    """

    def __init__(self, advice: str) -> None:
        super().__init__()
        self.advice = advice

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise TrainingDiverged(
                f"the loss became {loss} at step {batch + 1} of the epoch, at learning rate {rate:g}: {self.advice}"
            )
