"""How far a training is: its losses, the time per step and the time left."""

import sys
from time import monotonic

import keras
from tqdm import tqdm

from stages.progress import progress

LOG_SECONDS = 60.0  # between two lines in a log


class EpochProgress(keras.callbacks.Callback):
    """Shows a bar over all steps on a terminal, a line each minute in a log, and on both a line after each epoch.

    The time per step leaves out the first step of an epoch, which may be compiled. The time left includes validation;
    it is an upper bound if training may stop early.
    """

    def __init__(self, label: str, metric: str = "nll", may_stop_early: bool = False) -> None:
        super().__init__()
        self.label, self.metric, self.may_stop_early = label, metric, may_stop_early
        self._bar: tqdm | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch, self._begun = epoch, monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        steps, epochs = self.params["steps"], self.params["epochs"]
        self._last = monotonic()
        if batch == 0 and steps > 1:
            self._begun = self._last
        if self._bar is None:  # begun after the first step, so that its rate leaves out the compilation
            total = (epochs - self._epoch) * steps
            self._bar = progress(
                total=total, label=self.label, unit="steps", log_seconds=LOG_SECONDS, initial=1, smoothing=0
            )
        else:
            self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        steps, epochs = self.params["steps"], self.params["epochs"]
        per_step = (self._last - self._begun) / max(1, steps - 1)
        validation = monotonic() - self._last
        left = tqdm.format_interval((epochs - epoch - 1) * (steps * per_step + validation))
        line = (
            f"{self.label}: epoch {epoch + 1} of {epochs}: loss {logs[self.metric]:.4f}, "
            f"validation {logs[f'val_{self.metric}']:.4f}, {per_step:.2g} s per step, "
            f"{'at most ' if self.may_stop_early else ''}{left} left"
        )
        if sys.stderr.isatty():
            tqdm.write(line)  # above the bar
        else:
            print(line, flush=True)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
