"""The command ``melnet``: sing with a trained model, score recordings under it, say what it is, serve the live page."""

import argparse
import io
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import numpy as np
import soundfile

from melnet.audio.files import write_wav
from melnet.audio.integrity import UnusableAudio

if TYPE_CHECKING:
    from melnet.score import Score
    from melnet.singing import Model

PIPE = "-"
PEAK = 0.95  # as `write_wav` normalises

Command: TypeAlias = Callable[[argparse.Namespace], None]


class CommandError(ValueError):
    """The command cannot do its work; the message is one line."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit status 1."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"{self.prog}: {message}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that its user can mend ends it with one line and exit status 1."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow
    # These load Keras.
    from melnet.errors import MelnetError

    try:
        options.run(options)
    except (CommandError, MelnetError, OSError) as error:
        sys.exit(f"melnet: {error}")
    except KeyboardInterrupt:
        sys.exit("melnet: interrupted")


def sing(options: argparse.Namespace) -> None:
    """Sing, and write the audio to files or to a pipe."""
    to_pipe = options.out == PIPE
    if to_pipe and options.count > 1:
        raise CommandError(f"--count {options.count}: a pipe takes one recording")
    if to_pipe and sys.stdout.isatty():
        raise CommandError("--out -: standard output is a terminal; pipe it into a player or a file")
    if not to_pipe and Path(options.out).is_dir():
        raise CommandError(f"--out {options.out}: a folder; name a WAV file")
    model = _load(options, vocoder=options.inversion != "griffin-lim")
    if options.inversion == "vocoder" and model.vocoder is None:
        raise CommandError(f"--inversion vocoder: {options.model} has no vocoder")
    started = time.monotonic()
    score = _score(options, model)
    given = score or options.text
    seconds = (None if given else 10.0) if options.seconds is None else options.seconds
    frames = model.frames(seconds or 0)
    if given and seconds is None:
        frames = max(score.frames if score else 0, model.text_frames(options.text) if options.text else 0)
    progress = _Progress(model.steps(options.count, frames))
    audio = model.sing(
        seconds,
        count=options.count,
        temperature=options.temperature,
        top_components=options.top_components,
        seed=options.seed,
        singer=options.singer,
        prime=options.prime,
        prime_seconds=options.prime_seconds,
        score=score,
        text=options.text,
        inversion=options.inversion,
        on_frame=progress,
    )
    progress.clear()
    if to_pipe:
        _write_to_pipe(audio[0], model.sample_rate)
    else:
        for path, signal in zip(_paths(Path(options.out), options.count), audio, strict=True):
            write_wav(path, signal, model.sample_rate, normalise=True)
    seconds = audio.size / model.sample_rate
    inversion = model.inversion(options.inversion)
    print(f"{options.out}: {seconds:.1f} s by {inversion} in {time.monotonic() - started:.1f} s", file=sys.stderr)


def _score(options: argparse.Namespace, model: "Model") -> "Score | None":
    """Read the score, if there is one; a warning about its range goes to standard error."""
    if options.score is None:
        return None
    return model.read_score(
        options.score,
        transpose=options.transpose,
        tempo=options.tempo,
        on_warning=lambda message: print(f"melnet: {message}", file=sys.stderr),
    )


def score(options: argparse.Namespace) -> None:
    """Print the negative log-likelihood of each file, in nats per element."""
    from melnet.prime import read_recording

    model, unusable = _load(options, vocoder=False), 0
    for path in options.files:
        try:
            signal = read_recording(path, model.sample_rate)
            try:
                nats = model.score(signal, model.sample_rate, singer=options.singer)
            except UnusableAudio as error:
                raise UnusableAudio(f"{path}: {error}") from error
            print(f"{nats:.4f}  {path}", flush=True)
        except UnusableAudio as error:
            print(f"melnet: {error}", file=sys.stderr)
            unusable += 1
    if unusable:
        raise CommandError(f"{unusable} of {len(options.files)} files cannot be scored")


def info(options: argparse.Namespace) -> None:
    """Say what a model is, after all of its files were checked."""
    model = _load(options)
    mel, config = model.config.mel, model.config
    rows = {
        "spectrograms": f"{mel.n_mels} bands from {mel.fmin:.0f} to {mel.fmax:.0f} Hz, "
        f"a frame every {1000 * mel.seconds_per_frame:.1f} ms",
        "audio": f"{mel.sample_rate} Hz",
        "told": " and ".join(config.frame_conditioning.conditions) if config.frame_conditioning else "nothing",
        "reads": f"texts of {' '.join(config.alphabet.names)}" if config.alphabet else "no texts",
        "primes": f"at least {config.frames * mel.seconds_per_frame:.2f} s",
        "singers": ", ".join(model.singers) or "not named",
    }
    for name, tier in zip(config.tiers, model.tiers, strict=True):
        size = f"{len(tier.time_delayed)} layers, hidden {tier.hidden}, {tier.cell}, {config.num_components} components"
        rows[name] = f"{size}, {tier.count_params():,} weights"
    if model.vocoder is None:
        rows["vocoder"] = "none; it sings with griffin-lim"
    else:
        weights = model.vocoder.pitch.count_params() + model.vocoder.envelopes.count_params()
        rows["vocoder"] = f"{weights:,} weights; it sings with {model.inversion()}"
    card = options.model / "README.md"
    if card.is_file():
        rows["card"] = str(card)
    for name, value in rows.items():
        print(f"{name:<14}{value}")


def live(options: argparse.Namespace) -> None:
    """Open a page that sings, and serve it until interrupted."""
    try:
        from melnet.live.server import serve
    except ModuleNotFoundError as error:
        raise CommandError(f"live needs the extra `live`: {error.name} is not installed") from error

    serve(options.model, options.host, options.port, options.listeners, options.browser)


def _load(options: argparse.Namespace, *, vocoder: bool = True) -> "Model":
    from melnet.singing import load

    return load(options.model, vocoder=vocoder, warm_up=False)


def _paths(out: Path, count: int) -> list[Path]:
    """``out``, or with several samples as many numbered names."""
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{number:02d}") for number in range(count)]


def _write_to_pipe(signal: np.ndarray, sample_rate: int) -> None:
    peak = float(np.abs(signal).max())
    signal = signal * (PEAK / peak if peak else 1)
    with io.BytesIO() as content:  # a pipe cannot go back to write the header
        soundfile.write(content, signal, sample_rate, "PCM_16", format="WAV")
        # A copy of standard output, closed here: what a reader who has gone leaves unwritten is not written again.
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as pipe:
            pipe.write(content.getbuffer())


class _Progress:
    """The share of frames that are sung, on a terminal; may be called from several threads."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._shown = sys.stderr.isatty()
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            before, self._done = 100 * self._done // self._total, self._done + 1
            if self._shown and (percent := 100 * self._done // self._total) > before:
                print(f"\rsinging: {percent} %", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r" + " " * 20, end="\r", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="melnet", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Command) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.add_argument("--model", type=Path, default=Path("models"), metavar="FOLDER", help="default: models")
        added.set_defaults(run=run)
        return added

    singing = command("sing", sing)
    singing.add_argument("--out", required=True, metavar="FILE", help="WAV file; - writes it to a pipe")
    singing.add_argument("--seconds", type=_number(above=0), help="default: 10, or the length of the score or text")
    singing.add_argument("--count", type=_whole(1), default=1, help="samples, each in a numbered file; default: 1")
    singing.add_argument(
        "--temperature", type=_number(least=0), default=0.9, help="lower is more conservative; default: 0.9"
    )
    singing.add_argument("--top-components", type=_whole(1), metavar="K", help="draw from the K heaviest Gaussians")
    singing.add_argument("--seed", type=_whole(0), default=1, help="the same seed sings the same; default: 1")
    singing.add_argument("--singer", action="append", metavar="NAME", help="given several times, they take turns")
    singing.add_argument("--prime", type=Path, metavar="RECORDING", help="every sample continues its end")
    singing.add_argument("--prime-seconds", type=_number(above=0), default=4.0, help="how much of it; default: 4")
    singing.add_argument(
        "--score",
        type=Path,
        metavar="FILE",
        help="what is to be sung: MIDI, a melody as text, or a recording to follow",
    )
    singing.add_argument(
        "--text", help="what is to be sung, without times: phonemes, separated by spaces, or characters"
    )
    singing.add_argument(
        "--transpose", type=_number(), default=0.0, metavar="SEMITONES", help="of the score; default: 0"
    )
    singing.add_argument("--tempo", type=_number(above=0), default=1.0, help="factor of the score's; default: 1")
    singing.add_argument("--inversion", choices=["auto", "vocoder", "griffin-lim"], default="auto")

    scoring = command("score", score)
    scoring.add_argument("files", nargs="+", type=Path, metavar="FILE")
    scoring.add_argument("--singer", metavar="NAME")

    command("info", info)

    page = command("live", live)
    page.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, for this machine alone")
    page.add_argument("--port", type=_whole(0), default=8765, help="0 takes a free one; default: 8765")
    page.add_argument(
        "--listeners",
        type=_whole(1),
        metavar="N",
        help="listeners at a time; default: as many as the machine is fast enough for",
    )
    page.add_argument("--no-browser", dest="browser", action="store_false", help="do not open the page in a browser")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def _number(*, least: float = -math.inf, above: float = -math.inf) -> Callable[[str], float]:
    bound = (
        f"above {above:g}" if above > -math.inf else f"of at least {least:g}" if least > -math.inf else "that is finite"
    )

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least and value > above):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bound}")
        return value

    return parse


if __name__ == "__main__":
    main()
