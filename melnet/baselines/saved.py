"""The baselines of a model as ``models/baselines.json`` holds them."""

from dataclasses import dataclass
from typing import Any, Self

from melnet.baselines.band_mixture import BandMixture
from melnet.baselines.linear_autoregression import LinearAutoregression
from melnet.baselines.previous_frame import PreviousFrame


@dataclass(frozen=True)
class Baselines:
    """All densities, as ``models/baselines.json`` holds them."""

    band: BandMixture
    previous_frame: PreviousFrame
    linear: LinearAutoregression

    def to_dict(self) -> dict[str, Any]:
        """The parameters as lists, for JSON."""
        return {name: baseline.to_dict() for name, baseline in vars(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(
            BandMixture.from_dict(content["band"]),
            PreviousFrame.from_dict(content["previous_frame"]),
            LinearAutoregression.from_dict(content["linear"]),
        )
