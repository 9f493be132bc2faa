"""The precision of the model's matrix products: float32, or operands in bfloat16 and everything else in float32.

Accelerators multiply bfloat16 several times faster than float32. With ``bfloat16`` the products between features inside
the stacks have operands rounded to 8 significant bits; their sums, and all that is kept, stays in float32: states,
weights, gradients, the input layers, which see the spectrogram itself, and the head, which gives the mixtures.

The layers of the model are float32 whatever Keras' global dtype policy says: its ``mixed_bfloat16`` would round the
recurrent states and the mixtures too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import keras
from keras import ops

from melnet import backend
from melnet.backend import Tensor

Precision: TypeAlias = Literal["float32", "bfloat16"]

_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exact() -> Iterator[None]:
    """Context in which all products are traced with float32 operands, whatever the precision of a layer."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def matmul(a: Tensor, b: Tensor, precision: Precision) -> Tensor:
    """The product of float32 matrices, in float32, from operands of a precision; for ``bfloat16`` without a gradient.

    >>> x = ops.convert_to_tensor([[1.001]])
    >>> float(matmul(x, x, "float32")[0, 0]) > 1.001
    True
    >>> float(backend.compiled(lambda x: matmul(x, x, "bfloat16"))(x)[0, 0])
    1.0
    """
    if precision == "float32" or _exact.get():
        return ops.matmul(a, b)
    return backend.bfloat16_matmul(a, b)


def float32(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a layer that computes in float32 unless they say otherwise.

    >>> float32({"name": "head"})
    {'dtype': 'float32', 'name': 'head'}
    """
    return {"dtype": "float32"} | kwargs


@keras.saving.register_keras_serializable("melnet")
class Dense(keras.layers.Dense):
    """A dense layer in float32, whose product has operands of a precision.

    >>> layer = Dense(3, precision="bfloat16")
    >>> layer.build((None, 2))
    >>> tuple(backend.compiled(layer)(ops.zeros((5, 4, 2))).shape)
    (5, 4, 3)
    """

    def __init__(self, units: int, *, precision: Precision = "float32", **kwargs: Any) -> None:
        super().__init__(units, **float32(kwargs))
        self.precision: Precision = precision

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.precision == "float32" or _exact.get():
            return super().call(inputs, training)

        @ops.custom_gradient
        def product(x: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
            def gradient(upstream: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
                d_x = matmul(upstream, ops.transpose(kernel), self.precision)
                return d_x, matmul(ops.transpose(x), upstream, self.precision)

            return matmul(x, kernel, self.precision), gradient

        # custom_gradient does not take variables.
        rows = product(ops.reshape(inputs, (-1, inputs.shape[-1])), self.kernel * 1.0)
        outputs = ops.reshape(rows, (*ops.shape(inputs)[:-1], self.units))
        return outputs + self.bias if self.use_bias else outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "precision": self.precision}
