"""The baselines of a model as ``models/baselines.json`` holds them."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

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
        return _BASELINES.dump_python(self)

    @staticmethod
    def from_dict(content: dict[str, Any]) -> "Baselines":
        """The inverse of :meth:`to_dict`."""
        return _BASELINES.validate_python(content)


_BASELINES = TypeAdapter(Baselines)
