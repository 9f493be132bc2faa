"""The state of a training in one file, which is replaced at the end of every epoch.

It carries a fingerprint of everything that the training depends on, and only a training with the same fingerprint
continues from it. The windows of an epoch depend on the seed and the epoch's number alone, so a training that was
killed ends with the weights that it would have had undisturbed.
"""

import csv
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from melnet.data.atomic import atomic_write

Epoch = dict[str, float]
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole state of a training at the end of every epoch, and restores it.

    ``history`` has one entry per finished epoch: ``epoch`` (from 1), ``loss`` and ``val_loss`` (in nats) and
    ``learning_rate``. ``validated`` are the weights of the last validation: averaged, if the optimizer averages; and
    ``best`` those of the best epoch.

    Parameters
    ----------
    path
        The file; it does not have to exist.
    fingerprint
        A digest of everything that the training depends on.
    saves
        False in all but one of several processes that train together: all restore, one saves.
    metric
        Name of the loss in Keras' logs.

    >>> Checkpoint(Path("no such file.npz"), fingerprint="a").history
    []
    """

    def __init__(self, path: Path, fingerprint: str, saves: bool = True, metric: str = "nll") -> None:
        super().__init__()
        self.path, self.fingerprint, self.saves, self.metric = path, fingerprint, saves, metric
        self.history: list[Epoch] = []
        self.best: list[np.ndarray] = []
        self.validated: list[np.ndarray] = []
        self._found = self._read()

    @property
    def best_epoch(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return min(self.history, key=lambda epoch: epoch["val_loss"])

    def finished(self, epochs: int, patience: int | None) -> bool:
        """Whether ``epochs`` have run, or the last ``patience`` of them without a lower validation loss."""
        run = len(self.history)
        return run >= epochs or (patience is not None and run > 0 and run - self.best_epoch["epoch"] >= patience)

    def metrics(self, epochs: int) -> dict[str, float]:
        """Number and losses of the best epoch, and whether fewer than ``epochs`` have run."""
        best, run = self.best_epoch, len(self.history)
        losses = {name: best[name] for name in ("loss", "val_loss")}
        return {"best_epoch": best["epoch"], **losses, "epochs": run, "stopped_early": run < epochs}

    def write_history(self, path: Path) -> None:
        """Write ``history`` as CSV, atomically: a row per epoch, a column per figure."""
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.history[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)

    def _read(self) -> dict[str, list[np.ndarray]]:
        """The arrays that an earlier training with this fingerprint left, and its history; nothing if there is none."""
        try:
            with np.load(self.path, allow_pickle=False) as state:
                about = json.loads(str(state["about"]))
                if about["fingerprint"] != self.fingerprint:
                    return {}
                groups = {name: [state[f"{name}-{i}"] for i in range(n)] for name, n in about["arrays"].items()}
        except FileNotFoundError:
            return {}
        except UNREADABLE as error:
            # Saving replaces the whole file, so something else damaged it. Training again only costs time.
            print(f"{self.path}: cannot be read ({error}); training starts afresh", file=sys.stderr)
            return {}
        self.history, self.best = about["history"], groups["best"]
        return groups

    def restore(self, model: keras.Model) -> None:
        """Set the weights and the optimizer of a compiled model to the saved state, if there is one."""
        if self._found:
            model.set_weights(self._found["current"])
            for variable, value in zip(model.optimizer.variables, self._found["optimizer"], strict=True):
                variable.assign(value)
            self._found = {}

    def delete(self) -> None:
        """Remove the file, once the result of the training is saved elsewhere."""
        self.path.unlink(missing_ok=True)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self.validated = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        columns = {"loss": self.metric, "val_loss": f"val_{self.metric}", "learning_rate": "learning_rate"}
        self.history.append({"epoch": epoch + 1, **{name: float(logs[key]) for name, key in columns.items()}})
        if self.best_epoch is self.history[-1]:
            self.best = self.validated
        if self.saves:
            self._save()

    def _save(self) -> None:
        groups: dict[str, Any] = {
            "current": self.model.get_weights(),
            "optimizer": [ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables],
            "best": self.best,
        }
        about = {
            "fingerprint": self.fingerprint,
            "history": self.history,
            "arrays": {name: len(arrays) for name, arrays in groups.items()},
        }
        arrays = {f"{name}-{i}": array for name, group in groups.items() for i, array in enumerate(group)}
        with atomic_write(self.path) as temporary:
            np.savez(temporary, about=json.dumps(about), **arrays)


def finished_epochs(path: Path, fingerprint: str) -> int:
    """Number of epochs that a :class:`Checkpoint` with this fingerprint saved; 0 if the file cannot be read.

    >>> finished_epochs(Path("no such file.npz"), fingerprint="a")
    0
    """
    try:
        with np.load(path, allow_pickle=False) as state:
            about = json.loads(str(state["about"]))
            return len(about["history"]) if about["fingerprint"] == fingerprint else 0
    except UNREADABLE:
        return 0  # Checkpoint reports the damage when the training starts
