"""Gaussian mixtures of one variable: likelihood and sampling (arXiv 1906.01083, section 4, equations 4 to 7).

Mixture parameters are a tensor whose last axis holds 3 K unconstrained values: K means, K log standard deviations and K
logits.
"""

import math
from functools import reduce

import keras
import numpy as np
from keras import ops

from melnet.backend import Tensor

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
LEAST_UNIFORM = np.float32(2**-25)  # below all other draws: exactly zero would choose a component of no weight


def components(parameters: Tensor, min_sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Means, log standard deviations and log weights, each (..., K), from parameters (..., 3 K).

    The standard deviation is ``exp(σ̂) + min_sigma``. Where many values are exactly equal, as in digital silence, a
    density without a bound would reward ever narrower Gaussians.

    >>> mean, log_sigma, log_weight = components(ops.zeros(3), 1.0)
    >>> float(mean[0]), round(float(ops.exp(log_sigma)[0]), 3), float(log_weight[0])
    (0.0, 2.0, 0.0)
    """
    mean, log_sigma, logits = ops.split(parameters, 3, axis=-1)
    return mean, ops.logaddexp(log_sigma, math.log(min_sigma)), ops.log_softmax(logits, axis=-1)


def negative_log_likelihood(x: Tensor, parameters: Tensor, min_sigma: float) -> Tensor:
    """Negative log-likelihood in nats of each element of x (...) under parameters (..., 3 K); equation 4.

    >>> round(float(negative_log_likelihood(ops.zeros(1), ops.zeros((1, 6)), 0.01)[0]), 3)
    0.929
    """
    mean, log_sigma, log_weight = components(parameters, min_sigma)
    z = (ops.expand_dims(x, -1) - mean) * ops.exp(-log_sigma)
    return LOG_SQRT_2_PI - ops.logsumexp(log_weight - log_sigma - 0.5 * z * z, axis=-1)


def sample(
    parameters: Tensor,
    uniform: Tensor,
    normal: Tensor,
    *,
    min_sigma: float,
    temperature: Tensor,
    top_components: Tensor | None = None,
) -> Tensor:
    """Draw one value for each element of parameters (..., 3 K) from the noise given for the element.

    At temperature T component k is chosen with probability ∝ π_k^(1/T), and the value is drawn from N(μ_k, T σ_k²).
    T = 1 is the model's own distribution; T = 0 gives the mean of the heaviest component.

    Parameters
    ----------
    uniform, normal : (...)
        Draws from U(0, 1) and N(0, 1): the first chooses the component, the second the value.
    temperature : scalar
    top_components : scalar
        Draw from this many of the heaviest components only; None allows all. Both may be tensors, so that compiled code
        serves all their values.

    >>> parameters = ops.convert_to_tensor([5.0, 7.0, 0.0, 0.0, 0.0, 0.0])
    >>> float(sample(parameters, uniform=0.7, normal=0.0, min_sigma=0.01, temperature=1.0))
    7.0
    """
    # Component by component, since operations along their axis would be kernels of their own on an accelerator.
    columns = [parameters[..., i] for i in range(parameters.shape[-1])]
    k = len(columns) // 3
    means, log_sigmas, logits = columns[:k], columns[k : 2 * k], columns[2 * k :]
    temperature = ops.cast(temperature, parameters.dtype)
    none = temperature == 0  # the heaviest component without its spread; weights are not divided by zero
    top_components = ops.where(none, 1, k if top_components is None else top_components)
    heaviest = reduce(ops.maximum, logits)
    total, sums = 0.0, []
    for logit in logits:
        heavier = sum(ops.cast(other > logit, "int32") for other in logits if other is not logit)
        weight = ops.exp((logit - heaviest) / ops.where(none, 1.0, temperature))
        total = total + ops.where(heavier < top_components, weight, 0.0)
        sums.append(total)
    share = total * ops.where(none, LEAST_UNIFORM, ops.maximum(uniform, LEAST_UNIFORM))
    mean, log_sigma = means[0], log_sigmas[0]
    for i in range(1, k):
        beyond = share > sums[i - 1]
        mean, log_sigma = ops.where(beyond, means[i], mean), ops.where(beyond, log_sigmas[i], log_sigma)
    return mean + (ops.exp(log_sigma) + min_sigma) * (ops.sqrt(temperature) * normal)


@keras.saving.register_keras_serializable("melnet")
class MixtureLoss(keras.losses.Loss):
    """Mean negative log-likelihood in nats per element; sample weights apply to whole slices.

    >>> round(float(MixtureLoss(0.01)(ops.zeros((1, 2, 2)), ops.zeros((1, 2, 2, 6)))), 3)
    0.929
    """

    def __init__(self, min_sigma: float, **kwargs: object) -> None:
        super().__init__(reduction="mean_with_sample_weight", **kwargs)
        self.min_sigma = min_sigma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Mean nats per element of each slice, (batch,).

        ``y_true`` is (batch, frames, bands), ``y_pred`` the mixture parameters (batch, frames, bands, 3 K).
        """
        return ops.mean(negative_log_likelihood(y_true, y_pred, self.min_sigma), axis=(1, 2))

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "min_sigma": self.min_sigma}
