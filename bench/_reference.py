"""The same tier built on ``keras.layers.LSTM``, without a kernel of its own.

Tensors stay batch-major, (batch, frames, bands, hidden); a reshape or transpose gives each RNN its axis.
"""

import keras
from keras import ops

from melnet.backend import Tensor


def over_time(rnn: keras.layers.Layer, x: Tensor) -> Tensor:
    """Run an RNN forward in time, each band a row."""
    batch, frames, bands, hidden = x.shape
    rows = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch * bands, frames, hidden))
    return ops.transpose(ops.reshape(rnn(rows), (batch, bands, frames, -1)), (0, 2, 1, 3))


def over_frequency(rnn: keras.layers.Layer, x: Tensor) -> Tensor:
    """Run an RNN along the bands, each frame a row."""
    batch, frames, bands, hidden = x.shape
    return ops.reshape(rnn(ops.reshape(x, (batch * frames, bands, hidden))), (batch, frames, bands, -1))


class ReferenceTier(keras.Model):
    """Time-delayed, centralised and frequency-delayed stacks on stock Keras layers."""

    def __init__(self, *, batch: int, bands: int, layers: int, hidden: int, components: int) -> None:
        super().__init__()
        self.batch = batch
        lstm, dense = keras.layers.LSTM, keras.layers.Dense
        self.inputs_ = [dense(hidden) for _ in range(3)]
        self.time = [lstm(hidden, return_sequences=True) for _ in range(layers)]
        self.both = [keras.layers.Bidirectional(lstm(hidden, return_sequences=True)) for _ in range(layers)]
        self.central = [lstm(hidden, return_sequences=True) for _ in range(layers)]
        self.up = [lstm(hidden, return_sequences=True) for _ in range(layers)]
        self.project = [[dense(hidden) for _ in range(3)] for _ in range(layers)]
        self.head = dense(3 * components)

    def call(self, x: Tensor) -> Tensor:
        """Mixture parameters (batch, frames, bands, 3 K) of x (batch, frames, bands)."""
        x = ops.reshape(x, (self.batch, *x.shape[1:]))
        one_frame_back = ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))
        one_band_down = ops.pad(x[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
        delayed = self.inputs_[0](ops.expand_dims(one_frame_back, -1))
        whole = self.inputs_[1](one_frame_back)
        upwards = self.inputs_[2](ops.expand_dims(one_band_down, -1))
        for time, both, central, up, project in zip(
            self.time, self.both, self.central, self.up, self.project, strict=True
        ):
            states = ops.concatenate([over_time(time, delayed), over_frequency(both, delayed)], axis=-1)
            delayed = delayed + project[0](states)
            whole = whole + project[1](central(whole))
            upwards = upwards + project[2](over_frequency(up, upwards + delayed + ops.expand_dims(whole, 2)))
        return self.head(upwards)
