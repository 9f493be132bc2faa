"""Training one tier: compile, fit, keep the best epoch, continue after a kill.

The state of a training lies in one file that is replaced at the end of every epoch. It carries a fingerprint of
everything the training depends on: only a run with the same fingerprint continues from it, and since the order of the
batches depends on nothing but seed and epoch, it ends with the weights it would have had undisturbed.
"""

import itertools
import json
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from melnet import backend
from melnet.data.atomic import written
from melnet.data.dataset import WHOLE, Batch, Normalisation, Share, batches, shuffled_batches, steps_per_epoch
from melnet.data.shards import Shards
from melnet.model.mixture import MixtureLoss, negative_log_likelihood
from melnet.model.multiscale import TierIndex, inputs_and_target
from melnet.model.recurrent import Tensor
from melnet.model.tier import Tier
from stages.parameters import Train

Epoch = dict[str, float]
ONLY_TIER = TierIndex(1, 1)


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


class Progress(keras.callbacks.Callback):
    """Saves the whole state of a training at the end of every epoch, and restores it.

    ``history`` has one entry per finished epoch: ``epoch`` (from 1), ``loss`` and ``val_loss`` (nats per element, the
    latter with the averaged weights) and ``learning_rate``. ``best`` are the averaged weights of the best epoch.
    Of several processes that train together, all restore what one of them ``saves``.
    """

    def __init__(self, path: Path, fingerprint: str, saves: bool = True) -> None:
        super().__init__()
        self.path, self.fingerprint, self.saves = path, fingerprint, saves
        self.history: list[Epoch] = []
        self.best: list[np.ndarray] = []
        self._validated: list[np.ndarray] = []
        self._found = self._read()

    @property
    def best_epoch(self) -> Epoch:
        return min(self.history, key=lambda epoch: epoch["val_loss"])

    def _read(self) -> dict[str, list[np.ndarray]]:
        """The arrays that an earlier run with this fingerprint left, and its history; nothing if there is none."""
        try:
            with np.load(self.path, allow_pickle=False) as state:
                about = json.loads(str(state["about"]))
                if about["fingerprint"] != self.fingerprint:
                    return {}
                groups = {name: [state[f"{name}-{i}"] for i in range(n)] for name, n in about["arrays"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            # The file is replaced whole, so this is damage from outside; training again loses only time.
            print(f"{self.path}: cannot be read ({error}); training starts afresh", file=sys.stderr)
            return {}
        self.history, self.best = about["history"], groups["best"]
        return groups

    def restore(self, model: keras.Model) -> None:
        """Set the weights and the optimizer of a compiled model to what was found."""
        if self._found:
            model.set_weights(self._found["current"])
            for variable, value in zip(model.optimizer.variables, self._found["optimizer"], strict=True):
                variable.assign(value)
            self._found = {}

    def forget(self) -> None:
        """Remove the file, once the result of the training is safe elsewhere."""
        self.path.unlink(missing_ok=True)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self._validated = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        columns = {"loss": "nll", "val_loss": "val_nll", "learning_rate": "learning_rate"}
        self.history.append({"epoch": epoch + 1, **{name: float(logs[key]) for name, key in columns.items()}})
        if self.best_epoch is self.history[-1]:
            self.best = self._validated
        if self.saves:
            self._save()

    def _save(self) -> None:
        groups = {
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
        with written(self.path) as temporary:
            np.savez(temporary, about=json.dumps(about), **arrays)


def finished_epochs(path: Path, fingerprint: str) -> int:
    """How many epochs of the training with this fingerprint :class:`Progress` saved; 0 where nothing can be read."""
    try:
        with np.load(path, allow_pickle=False) as state:
            about = json.loads(str(state["about"]))
            return len(about["history"]) if about["fingerprint"] == fingerprint else 0
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return 0  # where it matters, Progress says what is wrong


class Replayed(keras.utils.PyDataset):
    """A stream that begins anew whenever its first batch is asked for.

    Keras makes new iterators, for validation in every epoch, on several devices to look at a batch beforehand. Of a
    generator it would repeat the batches that it had looked at first and lose those that the last iterator had read
    ahead, as many as happened to be.
    """

    def __init__(self, start: Callable[[], Iterator[Any]], count: int) -> None:
        super().__init__()
        self._start, self._count = start, count
        self._next, self._stream = 0, start()
        self._lock = threading.Lock()  # an iterator that is given up may still be reading ahead

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        with self._lock:
            if index != self._next:
                self._stream = itertools.islice(self._start(), index, None)
            self._next = index + 1
            return next(self._stream)


class StopAtNaN(keras.callbacks.Callback):
    """Ends a training whose loss is no longer finite; what :class:`Progress` saved before stays."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise TrainingDiverged(
                f"the loss became {loss} at step {batch + 1} of the epoch, at learning rate {rate:g}: "
                "lower train.learning_rate or train.clip_norm"
            )


def compile_tier(tier: Tier, settings: Train) -> None:
    """RMSprop with momentum on the mixture's negative log-likelihood, XLA-compiled.

    A moving average of the weights is kept beside them. The last steps of so large a momentum lie about a minimum, and
    their mean nearer to it: it is better than any of them, and samples from it run astray less.
    """

    def nll(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.mean(negative_log_likelihood(y_true, y_pred, tier.min_sigma), axis=(1, 2))

    tier.compile(
        optimizer=keras.optimizers.RMSprop(
            settings.learning_rate,
            momentum=settings.momentum,
            global_clipnorm=settings.clip_norm,
            use_ema=True,
            ema_momentum=settings.average,
        ),
        loss=MixtureLoss(tier.min_sigma),
        # The loss that Keras reports is a mean over batches; this one is over slices, so a last batch that is not full
        # counts by what it holds.
        weighted_metrics=[keras.metrics.MeanMetricWrapper(nll, name="nll")],
        jit_compile=backend.WHOLE_STEP,
    )
    tier.optimizer.build(tier.trainable_variables)
    tier.parts = backend.parts_of(settings.batch_size)


def fit(
    tier: Tier,
    train: Shards,
    valid: Shards,
    normalisation: Normalisation,
    settings: Train,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tier_index: TierIndex = ONLY_TIER,
    singers: Sequence[str] = (),
    devices: int = 1,
    share: Share = WHOLE,
) -> None:
    """Train for ``settings.epochs`` epochs, from where ``progress`` left off; the best epoch's weights stay.

    The shards hold whole slices, of which the tier takes its part; ``singers`` are those it knows, in their order.
    Between several ``devices``, on all of which the tier was built, every batch is divided; this process feeds its
    ``share``. All this changes results by no more than rounding does.

    Raises
    ------
    TrainingDiverged
        If the loss becomes infinite or not a number.
    """
    compile_tier(tier, settings)
    if devices > 1:
        from melnet.training.devices import (
            share_training,  # here, since results do not depend on it, and so no stage does
        )

        share_training(tier)
    progress.restore(tier)
    first = len(progress.history)
    if first < settings.epochs:
        size = settings.batch_size

        def epoch() -> Iterator[Batch]:
            """The batches of the epoch that `progress` has not finished yet."""
            done = len(progress.history)
            return shuffled_batches(train, normalisation, size, singers, seed=settings.seed, first_epoch=done)

        tier.fit(
            Replayed(lambda: _with_targets(epoch(), tier_index, share), steps_per_epoch(len(train), size)),
            shuffle=False,
            validation_data=Replayed(
                lambda: _with_targets(batches(valid, normalisation, size, singers), tier_index, share),
                steps_per_epoch(len(valid), size),
            ),
            initial_epoch=first,
            epochs=settings.epochs,
            verbose=0,  # `callbacks` say what there is to say
            callbacks=[
                StopAtNaN(),
                keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate(settings, epoch)),
                progress,
                # After `progress`, which so finds the averaged weights in the model at the end of a validation.
                keras.callbacks.SwapEMAWeights(),
                *callbacks,
            ],
        )
    tier.set_weights(progress.best)


def learning_rate(settings: Train, epoch: int) -> float:
    """The rate of an epoch counted from 0: halved after every ``halve_every`` epochs."""
    return settings.learning_rate * 0.5 ** (epoch // settings.halve_every)


def _with_targets(stream: Iterator[Batch], index: TierIndex, share: Share) -> Iterator[tuple[Any, Any, Any]]:
    for batch in map(share.rows, stream):
        yield *inputs_and_target(batch.x, batch.singers, index), batch.weights
