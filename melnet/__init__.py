"""MelNet (arXiv 1906.01083): audio, spectrograms, the model, its training and its sampling.

``melnet.load`` reads a trained model, to sing with (:class:`melnet.singing.Model`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melnet.singing import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Keras takes seconds to load, and most modules need none of it.
    if name == "load":
        from melnet.singing import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
