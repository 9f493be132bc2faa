"""The code that differs between Keras' backends TensorFlow and JAX, for training and sampling on one device.

:mod:`melnet.training.devices` holds the same for several devices. Everything else uses ``keras.ops``.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from typing import Any, TypeAlias

import keras
from keras import ops

Tensor: TypeAlias = Any
"""a tensor of the Keras backend in use, or anything that ``keras.ops`` accepts as one"""

# Options of XLA's CPU compiler. Its default optimisation level makes loops with small matmuls a fifth slower. By
# default it uses half the width of the processor's vectors, and spreads small matmuls over the cores, which are already
# busy with parts of a batch or groups of samples. Options that the user sets in XLA_FLAGS come last, so they win.
CPU_FLAGS = "--xla_backend_optimization_level=1 --xla_cpu_prefer_vector_width=512 --xla_cpu_multi_thread_eigen=false"

# Options of XLA's GPU compiler with which equal input gives equal bytes on one kind of GPU: no kernel that adds in any
# order, and none that is chosen by the time it takes, which is another in every run.
GPU_FLAGS = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"


def _cpu_only() -> bool:
    import tensorflow

    return not tensorflow.config.list_physical_devices("GPU")


def has_accelerator() -> bool:
    """Whether there is a GPU, or another device than a CPU, to compute on.

    JAX starts its devices at this question, so it comes after processes that train together are connected.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return not _cpu_only()


WHOLE_STEP = keras.backend.backend() != "tensorflow"
"""whether Keras compiles a training step as one function; on TensorFlow :class:`PartwiseModel` compiles its pieces"""
PARTS = 4 if not WHOLE_STEP and _cpu_only() else 1
"""largest number of parts of a batch that a training step computes in parallel"""

# XLA reads its flags when it compiles the first function, and ends the process at an unknown one. What JAX computes on
# is not known yet; a CPU makes nothing of the options for GPUs.
os.environ["XLA_FLAGS"] = f"{CPU_FLAGS if PARTS > 1 else GPU_FLAGS} {os.environ.get('XLA_FLAGS', '')}".rstrip()


@cache
def device_memory() -> int | None:
    """Bytes that programs may take on the first device; None if the backend sets no limit, as on a CPU."""
    if keras.backend.backend() == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    from tensorflow.python.client import device_lib  # the public interface tells what is used, not what there is

    limits = [device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"]
    return limits[0] if limits else None


def stateless(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., Any]:
    """A function that takes the values of ``variables`` as its first argument, a list, and computes with them.

    >>> variable = keras.Variable(3.0)
    >>> float(stateless(lambda x: variable * x, [variable])([5.0], 2.0))
    10.0
    """

    def of_values(values: Sequence[Any], *arguments: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arguments)

    return of_values


def compiled(function: Callable[..., Any], variables: Sequence[Any] = ()) -> Callable[..., Any]:
    """Compile a function of (nested) tensors with XLA, once for each combination of shapes.

    ``variables`` are those that the function reads. Their values are arguments of the compiled code, so it computes
    with what they hold when it is called. Without them JAX would compile the values in as constants; TensorFlow finds
    the variables that a function reads by itself.

    >>> [float(y) for y in compiled(lambda x: 2 * x)(ops.arange(3.0))]
    [0.0, 2.0, 4.0]
    >>> variable = keras.Variable(3.0)
    >>> triple = compiled(lambda x: variable * x, [variable])
    >>> before = float(triple(2.0))
    >>> variable.assign(5.0) is None
    False
    >>> before, float(triple(2.0))
    (6.0, 10.0)
    """
    if keras.backend.backend() == "jax":
        import jax

        if not variables:
            return jax.jit(function)
        program = jax.jit(stateless(function, variables))
        return lambda *arguments: program([variable.value for variable in variables], *arguments)
    import tensorflow

    return tensorflow.function(function, jit_compile=True, reduce_retracing=False)


def bfloat16_matmul(a: Any, b: Any) -> Any:
    """The product of float32 matrices, rounded to bfloat16, with sums in float32; in compiled functions only.

    >>> float(compiled(bfloat16_matmul)(ops.full((1, 2), 1.001), ops.ones((2, 1)))[0, 0])
    2.0
    """
    a, b = ops.cast(a, "bfloat16"), ops.cast(b, "bfloat16")
    if keras.backend.backend() == "jax":
        from jax import numpy

        return numpy.matmul(a, b, preferred_element_type="float32")
    import tensorflow

    return tensorflow.raw_ops.BatchMatMulV3(x=a, y=b, Tout=tensorflow.float32)


def gradients(function: Callable[..., Any], variables: Sequence[Any] = ()) -> Callable[..., list[Any]]:
    """A compiled function that takes the arguments of a scalar ``function`` and gives its gradients.

    The gradients are those with respect to the first argument and then to each of ``variables``.

    >>> [derivative] = gradients(lambda x: ops.sum(x**2))(ops.arange(3.0))
    >>> [float(d) for d in derivative]
    [0.0, 2.0, 4.0]
    """
    if keras.backend.backend() == "jax":
        import jax

        differentiated = jax.jit(jax.grad(stateless(function, variables), argnums=(0, 1)))

        def of_values(x: Any, *constants: Any) -> list[Any]:
            by_variables, by_x = differentiated([v.value for v in variables], x, *constants)
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


class AccumulatingModel(keras.Model):
    """A model whose training step can take a batch in micro-batches, one after the other, and add up their gradients.

    A step then needs memory for one micro-batch, and its result is that of the whole batch but for rounding. The loss
    must give one value per item of the batch, which the sample weights weight.
    """

    accumulate = 1
    """number of micro-batches; it must divide the batch size"""

    def _forward(self, values: list[Any], x: Any, y: Any, weights: Any) -> tuple[Any, Any]:
        """Prediction, and the weighted sum of the losses, with these values of the weights."""
        prediction = stateless(self, self.trainable_variables)(values, x)
        return prediction, ops.sum(weights * self.loss.call(y, prediction))


class WholeStepModel(AccumulatingModel):
    """A model whose training step JAX compiles as one function, with a loop over the micro-batches."""

    def train_step(self, state: Any, data: Any) -> Any:
        if self.accumulate == 1:
            return super().train_step(state, data)
        import jax

        values, others, optimizer_values, metric_values = state
        x, y, weights, micro_batches = self._micro_batches(data)

        def loss(values: list[Any], *micro_batch: Any) -> tuple[Any, Any]:
            prediction, loss = self._forward(values, *micro_batch)
            return loss, prediction

        def add(total: list[Any], micro_batch: Any) -> Any:
            found, gradients = jax.value_and_grad(loss, has_aux=True)(values, *micro_batch)
            return [a + b for a, b in zip(total, gradients, strict=True)], found

        gradients, (losses, predictions) = jax.lax.scan(add, [ops.zeros_like(v) for v in values], micro_batches)
        values, optimizer_values = self.optimizer.stateless_apply(optimizer_values, gradients, values)
        logs, metric_values = self._update_metrics_variables(
            metric_values, ops.sum(losses), x, y, _whole(predictions), weights
        )
        return logs, (values, others, optimizer_values, metric_values)

    def test_step(self, state: Any, data: Any) -> Any:
        if self.accumulate == 1:
            return super().test_step(state, data)
        import jax

        values, others, metric_values = state
        x, y, weights, micro_batches = self._micro_batches(data)
        predictions, losses = jax.lax.map(lambda micro_batch: self._forward(values, *micro_batch), micro_batches)
        logs, metric_values = self._update_metrics_variables(
            metric_values, ops.sum(losses), x, y, _whole(predictions), weights
        )
        return logs, (values, others, metric_values)

    def _micro_batches(self, data: Any) -> tuple[Any, Any, Any, Any]:
        """Inputs, targets and sample weights of a batch, and all three as micro-batches along a new first axis."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        batch = x, y, weights / ops.sum(weights)
        return x, y, weights, keras.tree.map_structure(lambda tensor: _dealt(tensor, self.accumulate), batch)


def _dealt(tensor: Any, hands: int) -> Any:
    """Rows dealt like cards, (hands, rows / hands, ...): each device, which has consecutive rows, has some of each."""
    rows, *rest = ops.shape(tensor)
    return ops.swapaxes(ops.reshape(tensor, (rows // hands, hands, *rest)), 0, 1)


def _whole(dealt: Any) -> Any:
    """The rows that :func:`_dealt` dealt, in their order."""
    hands, rows, *rest = ops.shape(dealt)
    return ops.reshape(ops.swapaxes(dealt, 0, 1), (hands * rows, *rest))


class PartwiseModel(AccumulatingModel):
    """A model whose training step computes parts of a micro-batch in parallel, each in its own compiled function.

    Inside a compiled function TensorFlow uses several cores for large matmuls only, and a recurrent model has small
    ones. Computing parts in parallel uses all cores for the whole step, and each part fits the cache better. Sums are
    taken in the order of the parts, so the result does not depend on how many parts run at once.
    """

    parts = 1
    """number of parts that a micro-batch is cut into; it must divide the size of a micro-batch"""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, weights, values, micro_batches = self._cut(data)
        gradients: list[list[Any]] = []
        predictions: list[Any] = []
        losses: list[Any] = []
        for micro_batch in micro_batches:
            with after(gradients):
                found = [self._part_gradients(values, *part) for part in micro_batch]
            predictions += [prediction for prediction, _, _ in found]
            losses += [loss for _, loss, _ in found]
            new = [part for _, _, part in found]
            gradients = [self._sum([*gradients, *new])] if gradients else new
        return self._apply(gradients, losses, predictions, x, y, weights)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, weights, values, micro_batches = self._cut(data)
        predictions: list[Any] = []
        losses: list[Any] = []
        for micro_batch in micro_batches:
            with after(losses):
                found = [self._part_prediction(values, *part) for part in micro_batch]
            predictions += [prediction for prediction, _ in found]
            losses += [loss for _, loss in found]
        return self._measure(losses, predictions, x, y, weights)

    def _cut(self, data: Any) -> tuple[Any, Any, Any, list[Any], list[list[Any]]]:
        """Inputs, targets and sample weights of a batch, the values of the weights, and the parts of micro-batches."""
        import tensorflow  # keras.ops.split needs the batch size when the function is traced

        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        batch, count = (x, y, weights / ops.sum(weights)), self.accumulate * self.parts
        pieces = keras.tree.map_structure(lambda tensor: tensorflow.split(tensor, count), batch)
        parts = [keras.tree.map_structure_up_to(batch, lambda split, n=n: split[n], pieces) for n in range(count)]
        micro_batches = [parts[first : first + self.parts] for first in range(0, count, self.parts)]
        return x, y, weights, [variable.value for variable in self.trainable_variables], micro_batches

    # These are functions of the weights' values, because TensorFlow runs functions with variables one after another.

    @cached_property
    def _part_prediction(self) -> Callable[..., Any]:
        return compiled(self._forward)

    @cached_property
    def _part_gradients(self) -> Callable[..., Any]:
        import tensorflow

        def differentiated(values: list[Any], x: Any, y: Any, weights: Any) -> tuple[Any, Any, list[Any]]:
            with tensorflow.GradientTape() as tape:
                tape.watch(values)
                prediction, loss = self._forward(values, x, y, weights)
            # The gradient of an embedding is a sparse tensor.
            return prediction, loss, [tensorflow.convert_to_tensor(g) for g in tape.gradient(loss, values)]

        return compiled(differentiated)

    @cached_property
    def _sum(self) -> Callable[..., list[Any]]:
        return compiled(summed)

    @cached_property
    def _apply(self) -> Callable[..., dict[str, Any]]:
        def update(
            gradients: list[Any], losses: list[Any], predictions: list[Any], x: Any, y: Any, weights: Any
        ) -> dict[str, Any]:
            self.optimizer.apply(summed(gradients), self.trainable_variables)
            return self._measured(losses, predictions, x, y, weights)

        return compiled(update)

    @cached_property
    def _measure(self) -> Callable[..., dict[str, Any]]:
        return compiled(self._measured)

    def _measured(self, losses: list[Any], predictions: list[Any], x: Any, y: Any, weights: Any) -> dict[str, Any]:
        self._loss_tracker.update_state(sum(losses[1:], losses[0]), sample_weight=ops.shape(y)[0])
        results: dict[str, Any] = self.compute_metrics(x, y, ops.concatenate(predictions), sample_weight=weights)
        return results


def summed(gradients: Sequence[Sequence[Any]]) -> list[Any]:
    """The sum of gradients, each a list with one tensor per weight, in their order.

    >>> [float(total) for total in summed([[1.0, 2.0], [3.0, 4.0]])]
    [4.0, 6.0]
    """
    return [sum(parts[1:], parts[0]) for parts in zip(*gradients, strict=True)]


def after(tensors: Any) -> AbstractContextManager[Any]:
    """Context of TensorFlow in which nothing is computed before these (nested) tensors are.

    Micro-batches that do not depend on each other would be computed at the same time, each in memory of its own.
    """
    import tensorflow

    return tensorflow.control_dependencies(keras.tree.flatten(tensors))


def parts_of(batch: int) -> int:
    """The largest number of equal parts that a batch can be cut into, up to :data:`PARTS`.

    >>> parts_of(1)
    1
    """
    return next(count for count in range(PARTS, 0, -1) if batch % count == 0)


Model: type[keras.Model] = WholeStepModel if WHOLE_STEP else PartwiseModel
"""base class of trainable models"""
