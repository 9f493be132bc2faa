"""Mean likelihoods, over all elements and over those above the log floor."""

import numpy as np


class MeanNll:
    """Mean negative log-likelihoods in nats per element, accumulated over batches.

    Each mean is given over all elements and over those above the log floor. Silence lies on the floor and is easy to
    predict; the second figure says how well sound is modelled.

    >>> means = MeanNll()
    >>> means.update(np.array([True, False]), {"nll": np.array([-3.0, 1.0])})
    >>> means.summary()
    {'floored': 0.5, 'nll': -1.0, 'nll_above_floor': 1.0}
    """

    def __init__(self) -> None:
        self._elements = 0
        self._floored = 0
        self._sums: dict[str, np.ndarray] = {}

    def update(self, floored: np.ndarray, nll: dict[str, np.ndarray]) -> None:
        """Add a batch.

        Parameters
        ----------
        floored
            True for elements on the log floor (:func:`melnet.data.dataset.floored`), of any shape.
        nll
            −log p of each element in nats, in the same shape, by the name of the model.
        """
        self._elements += floored.size
        self._floored += int(floored.sum())
        for name, nats in nll.items():
            sums = np.array([nats.sum(dtype=np.float64), nats[~floored].sum(dtype=np.float64)])
            self._sums[name] = self._sums.get(name, 0) + sums

    def summary(self) -> dict[str, float]:
        """``<name>`` and, if there are elements above the floor, ``<name>_above_floor`` of each model.

        ``floored`` is the share of elements on the floor, from 0 to 1.
        """
        above = self._elements - self._floored
        means = {"floored": self._floored / self._elements}
        for name, (everything, sound) in self._sums.items():
            means[name] = float(everything / self._elements)
            if above:
                means[f"{name}_above_floor"] = float(sound / above)
        return means
