"""A sketch of a recording: a few numbers by which the same recording is found again, at any gain."""

import numpy as np

SIZE = 64
PERIOD = 2**16  # samples after which the signs repeat; a multiple of SIZE
SIGNS = np.random.default_rng(0).choice(np.array([-1.0, 1.0], np.float32), PERIOD)


class Sketch:
    """Sums a signal that comes in blocks into SIZE numbers, each of every SIZE-th sample with a pseudo-random sign.

    The sketch is linear in the signal: that of a louder copy points in the same direction and that of a copy rounded to
    fewer bits in nearly the same, while those of two other recordings stand about at right angles.

    >>> noise = np.random.default_rng(1).standard_normal((2, 24000))
    >>> sketches = []
    >>> for signal in (noise[0], noise[1], -3 * noise[0]):
    ...     sketch = Sketch()
    ...     sketch.update(signal[:1000])
    ...     sketch.update(signal[1000:])
    ...     sketches.append(sketch.direction())
    >>> (np.stack(sketches) @ sketches[0]).round(1).tolist()
    [1.0, -0.0, -1.0]
    """

    def __init__(self) -> None:
        self._sums = np.zeros(SIZE)
        self._position = 0

    def update(self, block: np.ndarray) -> None:
        """Take the next block, shape (samples,), of floats."""
        first = self._position % PERIOD
        before = first % SIZE  # samples of the row of SIZE that the block before has begun
        rows = -(-(before + len(block)) // SIZE)
        signed = np.zeros((rows, SIZE), block.dtype)
        signs = np.resize(np.roll(SIGNS, -first), len(block))
        signed.reshape(-1)[before : before + len(block)] = signs * block
        with np.errstate(over="ignore", invalid="ignore"):  # of samples that `melnet.audio.convert` refuses
            self._sums += signed.sum(axis=0, dtype=np.float64)
        self._position += len(block)

    def direction(self) -> np.ndarray:
        """The sums scaled to unit length, float32 (SIZE,); zeros if all are zero."""
        largest = np.abs(self._sums).max()
        scaled = self._sums / largest if largest > 0 else self._sums
        return (scaled / max(float(np.linalg.norm(scaled)), 1.0)).astype(np.float32)
