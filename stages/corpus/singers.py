"""Whom a model tells apart."""

import json

from stages.command import StageError
from stages.parameters import Model
from stages.paths import SHARDS


def known_singers(settings: Model) -> list[str]:
    """The singers of the corpus in the order of their ids; none if the model is not conditioned on singers."""
    if "singer" not in settings.conditions:
        return []
    singers: list[str] = json.loads((SHARDS / "singers.json").read_text(encoding="utf-8"))["singers"]
    if "" in singers:
        raise StageError(
            "model.condition_on: singer, but recordings lie directly in corpus.path: the first folder below it names "
            "the singer"
        )
    return singers
