"""The one module that knows which backend Keras runs on: compiled functions, which ``keras.ops`` does not offer."""

from collections.abc import Callable, Sequence
from typing import Any

import keras


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
