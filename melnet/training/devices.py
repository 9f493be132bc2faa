"""Several devices, of one process or of many, that train one model: what TensorFlow and JAX each have for it.

With ``melnet/backend.py`` the only module that knows which backend Keras runs on. Results depend on nothing here, so
it is imported where it is needed, and no stage of the graph depends on it.
"""

from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any

import keras

from melnet.backend import after, compiled, summed


def device_count() -> int:
    """The accelerators of all processes together; where there are none, their CPU devices, as a rule one for each."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.device_count()
    return len(_tensorflow_devices())


def device_name() -> str:
    """The kind of device that Keras computes on: ``cpu``, or for example ``NVIDIA H100 80GB HBM3``."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.local_devices()[0].device_kind
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    return tensorflow.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"


def keep_gpus_for_keras() -> None:
    """Under JAX, keep TensorFlow, which then only writes logs, from taking most of the memory of every GPU."""
    if keras.backend.backend() != "tensorflow":
        import tensorflow

        tensorflow.config.set_visible_devices([], "GPU")


def _tensorflow_devices() -> list[str]:
    import tensorflow

    found = tensorflow.config.list_logical_devices
    return [device.name for device in found("GPU") or found("CPU")]


def on_all_devices() -> AbstractContextManager[Any]:
    """Context in which models are built for all devices, if there are several; batches are then divided among them.

    TensorFlow's ``MirroredStrategy`` or JAX's data parallel distribution; each process feeds its own part of a batch.
    """
    if device_count() == 1:
        return nullcontext()
    if keras.backend.backend() == "jax":
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope()
    import tensorflow

    return tensorflow.distribute.MirroredStrategy(_tensorflow_devices()).scope()


def is_distributed(model: keras.Model) -> bool:
    """Whether a model was built for several devices, in :func:`on_all_devices`."""
    if keras.backend.backend() == "jax":
        return keras.distribution.distribution() is not None
    return model.distribute_strategy.num_replicas_in_sync > 1


def share_training(model: keras.Model) -> None:
    """Let a model, compiled :func:`on_all_devices`, be trained by all of them as if by one, but for rounding.

    Its loss has to be a mean over weighted slices, ``call`` of which gives the loss of each slice.
    """
    if keras.backend.backend() == "jax":
        _share_jax(model)
    else:
        _share_tensorflow(model)


def _share_jax(model: keras.Model) -> None:
    """Every device applies the model to its own slices.

    Left to itself, XLA cannot divide the recurrent layers, in which the slices are the minor part of an axis: it
    gathers all of them on each device, where each then does the whole work.
    """
    import jax

    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    replicated, divided = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(mesh.axis_names[0])
    call, variables = model.call, list(model.variables)

    def apply(values: list[Any], inputs: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return call(inputs)

    # check_vma: the gradients that the recurrent layers define do not say which of their parts differ by device.
    apart = jax.shard_map(apply, mesh=mesh, in_specs=(replicated, divided), out_specs=divided, check_vma=False)
    model.call = lambda inputs: apart([variable.value for variable in variables], inputs)


def _share_tensorflow(model: keras.Model) -> None:
    """A training step of our own on every device, with the mean and the norm of the whole batch.

    Keras compiles the sum over the devices with the rest of the step, which XLA cannot; it takes the mean of the
    devices' means, which is another one where a batch is not full; and it clips what is not yet summed.
    """
    import tensorflow

    norm, model.optimizer.global_clipnorm = model.optimizer.global_clipnorm, None
    model.jit_compile = False
    call, count = compiled(model.call), model.accumulate
    [tracked] = [metric for metric in model.metrics if metric.name == "loss"]

    def micro_batches(data: Any) -> list[Any]:
        pieces = keras.tree.map_structure(lambda tensor: tensorflow.split(tensor, count), data)
        return [keras.tree.map_structure_up_to(data, lambda split, n=n: split[n], pieces) for n in range(count)]

    def predict(inputs: Any) -> Any:
        outputs: list[Any] = []
        for piece in micro_batches(inputs):
            with after(outputs):
                outputs.append(call(piece))
        return tensorflow.concat(outputs, axis=0)

    model.call = predict

    def train_step(data: Any) -> Any:
        inputs, target, weights = data
        replica = tensorflow.distribute.get_replica_context()
        outputs: list[Any] = []
        total: list[list[Any]] = []
        for piece, piece_target, piece_weights in micro_batches(data):
            with after(total), tensorflow.GradientTape() as tape:
                outputs.append(call(piece))
                loss = tensorflow.reduce_sum(model.loss.call(piece_target, outputs[-1]) * piece_weights)
                # That of an embedding comes as the rows it used.
                found = [tensorflow.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_weights)]
            total = [summed([*total, [loss, *found]])]
        output = tensorflow.concat(outputs, axis=0)
        [[loss, *found]] = total
        parts = [loss, tensorflow.reduce_sum(weights), *found]
        loss, weight, *gradients = replica.all_reduce("SUM", parts)
        gradients = [gradient / weight for gradient in gradients]
        if norm is not None:
            gradients, _ = tensorflow.clip_by_global_norm(gradients, norm)
        # The optimizer sums over the devices once more.
        share = replica.num_replicas_in_sync
        model.optimizer.apply([gradient / share for gradient in gradients], model.trainable_weights)
        tracked.update_state(loss / weight)
        return model.compute_metrics(inputs, target, output, sample_weight=weights)

    model.train_step = train_step
    model.test_step = MethodType(keras.Model.test_step, model)
