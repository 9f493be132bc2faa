"""The sections of ``params.yaml`` as frozen, validated models.

Nothing heavy is imported here, so that a wrong value is reported before any work and any slow import.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from melnet.audio.mel import MelSpec
from melnet.model.multiscale import divisors

# A float field takes a whole number too, never a string, NaN or infinity.
Finite = Annotated[float, Field(allow_inf_nan=False)]
ADDRESS = r"^([\w.-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}$"
AUTO = "auto"
TIER_NAME = r"^tier-[1-9][0-9]*$"
NO_MODEL = "params/none"
"""value of ``train.initial_model`` with which training starts from random weights; a file, since DVC looks for it"""
RENAMED = {
    "model.mixture": "model.num_components",
    "train.average": "train.ema_decay",
    "train.halve_every": "train.lr_halving_epochs",
}
"""keys of earlier versions and what they are called now"""


class ParamsError(ValueError):
    """A setting that cannot be used; the message is one line and names the key."""


class Section(BaseModel):
    """A section of ``params.yaml``: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Corpus(Section):
    path: str = Field(min_length=1)


class Demo(Section):
    seed: int = Field(ge=0, lt=2**32)
    minutes: Finite = Field(ge=0.05, le=600)
    files: int = Field(ge=1, le=1000)
    sample_rate: int = Field(ge=8000, le=192000)


class Downsample(Section):
    sample_rate: int = Field(ge=1000, le=192000)
    min_seconds: Finite = Field(ge=0)
    max_pause_seconds: Finite | None = Field(gt=0)
    max_rejected: Finite = Field(ge=0, le=1)


class Mel(Section):
    n_fft: int = Field(ge=16, le=2**16)
    hop_length: int = Field(ge=1)
    n_mels: int = Field(ge=1, le=2**15)  # there are no more FFT bins
    fmin: Finite = Field(ge=0)
    fmax: Finite = Field(gt=0)
    floor: Finite = Field(gt=0)


class Slice(Section):
    frames: int = Field(ge=1)
    block_seconds: Finite | None = Field(gt=0)
    valid: Finite = Field(gt=0, lt=1)
    test: Finite = Field(gt=0, lt=1)
    shard_rows: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid: {self.valid} and test: {self.test} leave nothing to train on")
        return self


class Tier(Section):
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    feature_layers: int | None = Field(default=None, ge=1)


Condition = Literal["singer", "melody", "phonemes", "text"]


def _listed(value: Any) -> Any:
    """A word alone is a list of one."""
    return [value] if isinstance(value, str) else value


class Model(Section):
    cell: Literal["lstm", "gru"]
    num_components: int = Field(ge=1)
    min_sigma: Finite = Field(gt=0, lt=1)
    condition_on: Annotated[list[Condition], Field(min_length=1), BeforeValidator(_listed)] | None
    lookahead: int = Field(ge=0, le=1000)
    tiers: dict[Annotated[str, Field(pattern=TIER_NAME)], Tier] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected = [f"tier-{i + 1}" for i in range(len(self.tiers))]
        if self.tier_names != expected:
            raise ValueError(f"tiers: {', '.join(self.tiers)} should be {', '.join(expected)}")
        if len(set(self.conditions)) < len(self.conditions):
            raise ValueError(f"condition_on: {', '.join(self.conditions)} names one twice")
        if {"text", "phonemes"} <= set(self.conditions):
            raise ValueError("condition_on: phonemes have their times, which a text is without; name one of them")
        if self.tiers["tier-1"].feature_layers is not None:
            raise ValueError("tiers.tier-1.feature_layers: the first tier has no earlier ones to take features from")
        return self

    @property
    def conditions(self) -> list[Condition]:
        """What the model is told, if anything."""
        return self.condition_on or []

    @property
    def tier_names(self) -> list[str]:
        """The names of the tiers in the order of their numbers."""
        return sorted(self.tiers, key=lambda name: int(name.removeprefix("tier-")))


class Train(Section):
    initial_model: str = Field(min_length=1)
    window_frames: int = Field(ge=1)
    windows_per_epoch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    patience: int | None = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: Finite = Field(gt=0)
    momentum: Finite = Field(ge=0, lt=1)
    lr_halving_epochs: int = Field(ge=1)
    clip_norm: Finite = Field(gt=0)
    ema_decay: Finite = Field(ge=0, lt=1)
    condition_dropout: Finite = Field(ge=0, le=1)
    alignment_steps: int = Field(ge=0)
    recompute: bool
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        windows, size = self.windows_per_epoch, self.batch_size
        if windows % size:
            nearest = _nearest_multiples(windows, size)
            raise ValueError(
                f"windows_per_epoch: {windows} is no multiple of train.batch_size: {size}; the nearest: {nearest}"
            )
        if size % self.accumulate:
            divisors = [count for count in range(1, size + 1) if size % count == 0]
            nearest = " or ".join(str(count) for count in _neighbours(divisors, self.accumulate))
            raise ValueError(
                f"accumulate: {self.accumulate} does not divide train.batch_size: {size}; the nearest: {nearest}"
            )
        return self

    @property
    def schedule(self) -> dict[str, Any]:
        """The settings of :class:`melnet.training.fit.TrainConfig`: all but the model that training starts from."""
        return self.model_dump(exclude={"initial_model"})

    @property
    def initial_folder(self) -> Path | None:
        """Folder of the model whose weights training starts from; None for random weights."""
        return None if self.initial_model == NO_MODEL else Path(self.initial_model)


class Vocoder(Section):
    pitch_steps: int = Field(ge=1)
    envelope_steps: int = Field(ge=1)
    hidden: int = Field(ge=8, le=4096)
    blocks: int = Field(ge=1, le=32)
    max_minutes: Finite = Field(gt=0)
    seed: int = Field(ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("pitch_steps", "envelope_steps"):
            if (steps := getattr(self, name)) > 100 and steps % 100:
                raise ValueError(f"{name}: {steps} steps are no whole number of epochs of 100 steps")
        return self


class Evaluate(Section):
    batch_size: int = Field(ge=1)
    baseline_frames: int = Field(ge=10)


class Generate(Section):
    count: int = Field(ge=1)
    frames: int = Field(ge=2)  # one frame has no duration
    measured: int = Field(ge=0)
    temperature: Finite = Field(ge=0)
    top_components: int | None = Field(ge=1)
    singer: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] | None
    prime: Annotated[str, Field(min_length=1)] | None
    prime_seconds: Finite = Field(gt=0)
    score: Annotated[str, Field(min_length=1)] | None
    text: Annotated[str, Field(min_length=1)] | None
    transpose: Finite = Field(ge=-48, le=48)
    tempo: Finite = Field(ge=0.1, le=10)
    seed: int = Field(ge=0, lt=2**32)
    precision: Literal["float32", "bfloat16"] = "float32"
    inversion: Literal["auto", "vocoder", "griffin-lim"]
    griffin_lim_iterations: int = Field(ge=1)


class Report(Section):
    recordings: int = Field(ge=1, le=100)
    licence: str


class Execution(Section):
    """Where and how the work is done, and what is shown of it. It changes no result, so no stage depends on it."""

    dask_scheduler: str | None = Field(pattern=r"^[a-z]+://[^\s/]+$")
    coordinator: Annotated[str, Field(pattern=rf"{ADDRESS}|^{AUTO}$")] | None
    processes: int | None = Field(ge=1, le=10_000)
    index: int | None = Field(ge=0, lt=10_000)
    preview_every: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.coordinator == AUTO and (self.processes, self.index) != (None, None):
            raise ValueError(f"coordinator: {AUTO} takes processes and index from the cluster: leave both empty")
        return self


class Params(Section):
    """All of ``params.yaml``."""

    corpus: Corpus
    demo: Demo
    downsample: Downsample
    mel: Mel
    slice: Slice
    model: Model
    train: Train
    vocoder: Vocoder
    evaluate: Evaluate
    generate: Generate
    report: Report
    execution: Execution

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.mel_spec  # noqa: B018  # raises where the values contradict each other
        tiers = len(self.model.tiers)
        frames, bands = divisors(tiers)
        check_divisible("slice.frames", self.slice.frames, frames, tiers)
        check_divisible("train.window_frames", self.train.window_frames, frames, tiers)
        check_divisible("mel.n_mels", self.mel.n_mels, bands, tiers)
        singer, count = self.generate.singer, self.generate.count
        if singer is not None and "singer" not in self.model.conditions:
            raise ValueError(f"generate.singer: {singer!r} needs model.condition_on: singer")
        if self.generate.text is not None and "text" not in self.model.conditions:
            raise ValueError(f"generate.text: {self.generate.text!r} needs model.condition_on: text")
        if self.generate.score is not None and "melody" not in self.model.conditions:
            raise ValueError(f"generate.score: {self.generate.score!r} needs model.condition_on: melody")
        if isinstance(singer, list) and len(singer) != count:
            raise ValueError(f"generate.singer: {len(singer)} names for generate.count: {count} samples")
        return self

    @property
    def mel_spec(self) -> MelSpec:
        """The settings of the mel spectrogram, with the sample rate."""
        try:
            return MelSpec(sample_rate=self.downsample.sample_rate, **self.mel.model_dump())
        except ValueError as error:
            raise ValueError(f"mel.{error}") from error


def check_divisible(key: str, size: int, divisor: int, tiers: int) -> None:
    """Raise :class:`ValueError` for a number of frames or bands that the tiers cannot split into halves evenly."""
    if size % divisor:
        nearest = _nearest_multiples(size, divisor)
        raise ValueError(f"{key}: {size} is no multiple of {divisor}, as {tiers} tiers need; the nearest: {nearest}")


def _nearest_multiples(size: int, divisor: int) -> str:
    below = size - size % divisor
    return f"{below} or {below + divisor}" if below else f"{divisor}"


def _neighbours(ascending: list[int], value: int) -> list[int]:
    """The numbers next to ``value``, below and above it."""
    return [n for n in ascending if n < value][-1:] + [n for n in ascending if n > value][:1]


def load_params(path: Path) -> Params:
    """Read and validate a parameter file.

    Raises
    ------
    ParamsError
        One line naming the file, the key, its value and what was expected.
    """
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number and `on` is a word.
        content = YAML(typ="safe").load(path)
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}") from error
    except YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(f"{path}: {'; '.join(_describe(item) for item in error.errors())}") from error


def _describe(item: ErrorDetails) -> str:
    """One problem as ``key: what is wrong (it is value)``."""
    parts = (str(part) for part in item["loc"])
    key = ".".join(part if part.isprintable() and part else repr(part) for part in parts)
    if item["type"] == "extra_forbidden" and key in RENAMED:
        return f"{key}: is now called {RENAMED[key]} (it is {item['input']!r})"
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    if item["type"] == "value_error":  # a check of this project: the message starts with the rest of the key
        return f"{key}.{message}".lstrip(".")
    given = "" if item["type"] == "missing" else f" (it is {value!r})"
    return f"{key}: {message}{given}"
