"""Learning to read: texts whose true alignment is known, since each symbol sounds in its own way."""

import keras
import numpy as np
from keras import ops

from melnet.backend import compiled
from melnet.model.tier import Tier
from melnet.training.alignment import learn_to_read

SYMBOLS, LENGTH, FRAMES, BANDS, BATCH = 5, 6, 40, 4, 16
SOUNDS = np.array([[0, 0, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]], np.float32)


def utterances(rng, count):
    """Frames (count, frames, bands), texts (count, symbols) and the number of the symbol at each frame."""
    texts = np.ones((count, LENGTH), np.int32)
    for at in range(1, LENGTH):  # no symbol twice in a row
        texts[:, at] = (texts[:, at - 1] - 1 + rng.integers(1, SYMBOLS - 1, count)) % (SYMBOLS - 1) + 1
    edges = np.sort(rng.permuted(np.tile(np.arange(1, FRAMES), (count, 1)), axis=1)[:, : LENGTH - 1], axis=1)
    at = (np.arange(FRAMES)[:, None] >= edges[:, None]).sum(axis=-1)
    sounds = SOUNDS[np.take_along_axis(texts, at, axis=1)]
    return (sounds + rng.normal(scale=0.3, size=sounds.shape)).astype("float32"), texts, at


def test_the_alignment_forms_and_then_stays():
    """The reader finds the symbol of nine frames out of ten; the first frame of a symbol is still read as the last."""
    keras.utils.set_random_seed(1)
    tier = Tier(bands=BANDS, layers=1, hidden=16, num_components=2, min_sigma=0.02, text=SYMBOLS, text_speed=0.15)
    x, texts, expected = utterances(np.random.default_rng(2), 32)
    align = compiled(tier.alignment, tier.weights)

    def share_right():
        return np.mean(ops.convert_to_numpy(align({"x": x, "text": texts})).argmax(axis=-1)[:, 1:] == expected[:, :-1])

    def batches(epoch):
        rng = np.random.default_rng(epoch)
        for _ in range(10):
            x, texts, _ = utterances(rng, BATCH)
            yield {"x": x, "text": texts}, x, np.ones(BATCH, np.float32)

    assert share_right() < 0.5
    learn_to_read(tier, batches, steps=150, batch_size=BATCH)
    assert share_right() > 0.9
    assert not any("/text/" in variable.path for variable in tier.trainable_variables)
