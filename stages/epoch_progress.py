"""How a training goes on, for those who wait: losses after each epoch, the rate, and the time left for all of it."""

import sys
import time
from collections.abc import Callable

import keras
from tqdm import tqdm

from stages.progress import progress

SILENCE = 60.0  # s without a line in a log, before one comes inside an epoch


class Pace(keras.callbacks.Callback):
    """A bar over all steps of a training on a terminal, plain lines otherwise; a line after each epoch on both.

    The rate is that of the epoch's steps after the first, in which a step may be compiled. What is left is counted in
    epochs with their validation.
    """

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.label = label
        self._clock = clock
        self._bar: tqdm | None = None
        self._started = self._first = self._last = self._said = 0.0
        self._steps = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        steps, epochs = self.params["steps"], self.params["epochs"]
        if self._bar is None and sys.stderr.isatty():
            self._bar = progress(total=(epochs - epoch) * steps, label=self.label, unit="steps")
        self._epoch, self._steps = epoch, 0
        self._started = self._clock()
        self._said = max(self._said, self._started)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._last = self._clock()
        self._steps += 1
        if self._steps == 1:
            self._first = self._last
        if self._bar is not None:
            self._bar.update()
        elif self._last - self._said > SILENCE:
            self._say(f"step {self._steps} of {self.params['steps']}", self._seconds_per_step * self._to_come)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        whole = self._clock() - self._first + self._seconds_per_step
        losses = f"loss {logs['nll']:.4f}, validation {logs['val_nll']:.4f}"
        self._say(losses, whole * (self.params["epochs"] - epoch - 1))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def _seconds_per_step(self) -> float:
        after_first = self._steps - 1
        return (self._last - self._first) / after_first if after_first else self._last - self._started

    @property
    def _to_come(self) -> int:
        """Steps after this one."""
        return (self.params["epochs"] - self._epoch) * self.params["steps"] - self._steps

    def _say(self, what: str, seconds_left: float) -> None:
        left = f", {duration(seconds_left)} left" if seconds_left else ""
        line = (
            f"{self.label}: epoch {self._epoch + 1} of {self.params['epochs']}: {what}, "
            f"{self._seconds_per_step:.2g} s per step{left}"
        )
        if self._bar is not None:
            self._bar.write(line)
        else:
            print(line, flush=True)
        self._said = self._clock()


def duration(seconds: float) -> str:
    """A length of time in the unit that reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
