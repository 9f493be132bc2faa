"""The one module that knows which backend Keras runs on: what ``keras.ops`` and ``keras.Model`` do not offer."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import keras
from keras import ops

# What XLA's CPU compiler is to do differently. At its default level, loops with small matmuls come out a fifth slower;
# of a machine's vectors it uses half the width; and it spreads small matmuls over the cores, where parts of a batch and
# groups of samples are at work already. What XLA_FLAGS says besides comes last and has its way.
CPU_FLAGS = "--xla_backend_optimization_level=1 --xla_cpu_prefer_vector_width=512 --xla_cpu_multi_thread_eigen=false"


def _cpu_only() -> bool:
    import tensorflow

    return not tensorflow.config.list_physical_devices("GPU")


WHOLE_STEP = keras.backend.backend() != "tensorflow"
"""whether Keras is to compile a training step whole; on TensorFlow :class:`PartwiseModel` compiles its pieces"""
PARTS = 4 if not WHOLE_STEP and _cpu_only() else 1
"""into how many parts a training step cuts a batch at most, for several cores to compute side by side"""

if PARTS > 1:  # read when the first function is compiled; a flag that XLA does not know would end the process
    os.environ["XLA_FLAGS"] = f"{CPU_FLAGS} {os.environ.get('XLA_FLAGS', '')}".rstrip()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of (nested) tensors with XLA; once per combination of shapes."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow

    return tensorflow.function(function, jit_compile=True, reduce_retracing=False)


def gradients(function: Callable[..., Any], variables: Sequence[Any] = ()) -> Callable[..., list[Any]]:
    """A compiled function of the same arguments that gives the gradients of a scalar ``function``.

    They are taken with respect to its first argument and to ``variables``, in this order.
    """
    if keras.backend.backend() == "jax":
        import jax

        def stateless(x: Any, values: list[Any], *constants: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(x, *constants)

        differentiated = jax.jit(jax.grad(stateless, argnums=(0, 1)))

        def of_values(x: Any, *constants: Any) -> list[Any]:
            by_x, by_variables = differentiated(x, [v.value for v in variables], *constants)
            return [by_x, *by_variables]

        return of_values
    import tensorflow

    def taped(x: Any, *constants: Any) -> list[Any]:
        x = tensorflow.convert_to_tensor(x)
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            result = function(x, *constants)
        return tape.gradient(result, [x, *(v.value for v in variables)])

    return compiled(taped)


class PartwiseModel(keras.Model):
    """A model whose training step computes parts of a batch side by side, each in compiled code of its own.

    Inside compiled code TensorFlow gives several cores to large matmuls alone. A recurrent model has small ones and
    much else: in parts, all of a step runs on several cores, on less memory that is used sooner again. The sums are
    taken in the order of the parts, so the result does not depend on how many run at once. The loss is to be one value
    per item of a batch, weighted by the sample weights.
    """

    parts = 1
    """into how many parts a batch is cut; it divides the batch size"""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        values = [variable.value for variable in self.trainable_variables]
        share = weights / ops.sum(weights)
        found = [self._part_gradients(values, *part) for part in self._cut((x, y, share))]
        predictions, losses, gradients = zip(*found, strict=True)
        return self._apply(list(gradients), list(losses), list(predictions), x, y, weights)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        values = [variable.value for variable in self.trainable_variables]
        share = weights / ops.sum(weights)
        found = [self._part_prediction(values, *part) for part in self._cut((x, y, share))]
        predictions, losses = zip(*found, strict=True)
        return self._measure(list(losses), list(predictions), x, y, weights)

    def _cut(self, batch: Any) -> list[Any]:
        import tensorflow  # keras.ops.split wants to know the batch size when it is traced

        pieces = keras.tree.map_structure(lambda tensor: tensorflow.split(tensor, self.parts), batch)
        return [keras.tree.map_structure_up_to(batch, lambda split, n=n: split[n], pieces) for n in range(self.parts)]

    # As functions of the weights' values: with variables in them, TensorFlow would run them one after the other.

    @cached_property
    def _part_prediction(self) -> Callable[..., Any]:
        return compiled(self._forward)

    @cached_property
    def _part_gradients(self) -> Callable[..., Any]:
        import tensorflow

        def differentiated(values: list[Any], x: Any, y: Any, share: Any) -> tuple[Any, Any, list[Any]]:
            with tensorflow.GradientTape() as tape:
                tape.watch(values)
                prediction, loss = self._forward(values, x, y, share)
            # That of an embedding comes as the rows it used.
            return prediction, loss, [tensorflow.convert_to_tensor(g) for g in tape.gradient(loss, values)]

        return compiled(differentiated)

    def _forward(self, values: list[Any], x: Any, y: Any, share: Any) -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=list(zip(self.trainable_variables, values, strict=True))):
            prediction = self(x)
        return prediction, ops.sum(share * self.loss.call(y, prediction))

    @cached_property
    def _apply(self) -> Callable[..., dict[str, Any]]:
        def update(
            gradients: list[Any], losses: list[Any], predictions: list[Any], x: Any, y: Any, weights: Any
        ) -> dict[str, Any]:
            total = [sum(parts[1:], parts[0]) for parts in zip(*gradients, strict=True)]
            self.optimizer.apply(total, self.trainable_variables)
            return self._measured(losses, predictions, x, y, weights)

        return compiled(update)

    @cached_property
    def _measure(self) -> Callable[..., dict[str, Any]]:
        return compiled(self._measured)

    def _measured(self, losses: list[Any], predictions: list[Any], x: Any, y: Any, weights: Any) -> dict[str, Any]:
        self._loss_tracker.update_state(sum(losses[1:], losses[0]), sample_weight=ops.shape(y)[0])
        results: dict[str, Any] = self.compute_metrics(x, y, ops.concatenate(predictions), sample_weight=weights)
        return results


def parts_of(batch: int) -> int:
    """Into how many equal parts a training step cuts a batch: the most that divide it, up to :data:`PARTS`."""
    return next(count for count in range(PARTS, 0, -1) if batch % count == 0)


Model: type[keras.Model] = keras.Model if WHOLE_STEP else PartwiseModel
"""What trainable models are made of."""
