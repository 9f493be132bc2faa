"""Log-mel spectrograms to audio with a trained vocoder, at once or as a stream."""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from keras import ops

from melnet.audio.mel import MelSpec, filterbank
from melnet.audio.spectrogram import frame_signal, hann_window, mel_power
from melnet.backend import compiled
from melnet.data.tracks import FrameTracks
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.decoding import LAG, PitchDecoder, melody_cost
from melnet.vocoder.filters import OverlapAdd, SubframeFilters
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork
from melnet.vocoder.source import PulseSource

CHUNK_FRAMES = 1024  # most frames of an item that are worked on at a time, which bounds the memory
PITCH_BLOCK = 32  # frames whose pitch is found at a time
LONGEST_REST = 2.0  # s; what follows is silence
LARGEST_CORRECTION = 20.0  # of a band's power, up or down


class Vocoder:
    """A trained vocoder.

    >>> from melnet.data.dataset import Normalisation
    >>> config = VocoderConfig(MelSpec(), Normalisation.identity(32), singers=[], hidden=8, blocks=1)
    >>> vocoder = Vocoder(config, PitchNetwork(config), EnvelopeNetwork(config))
    >>> vocoder(np.full((1, 10, 32), MelSpec().log_floor)).shape
    (1, 4608)
    """

    def __init__(self, config: VocoderConfig, pitch: PitchNetwork, envelopes: EnvelopeNetwork) -> None:
        self.config, self.pitch, self.envelopes = config, pitch, envelopes
        self.filters = SubframeFilters(config)
        # Compiled, since it is called for every few frames, always with one shape.
        self.logits = compiled(lambda x, singers: pitch((x, singers)), pitch.weights)

    def __call__(
        self,
        log_mels: np.ndarray,
        singers: Sequence[int] | None = None,
        seed: int = 0,
        melody: np.ndarray | None = None,
    ) -> np.ndarray:
        """Audio of a batch of spectrograms.

        Parameters
        ----------
        log_mels : (items, frames, bands)
            As :func:`melnet.audio.spectrogram.log_mel` gives them. What follows two seconds of silence is digital
            silence.
        singers : (items,)
            Singer ids; None: all 0.
        seed
            Of the noise. An item's audio depends on its spectrogram, the seed and its index, not on the other items.
        melody : (items, any number of frames, 2)
            What the spectrograms were asked to sing, see :class:`melnet.data.tracks.FrameTracks`: it decides where they
            leave the pitch in doubt. None: nothing is known of it.

        Returns
        -------
        float32 (items, (frames - 1) * hop_length)
            Not limited to ±1.

        Raises
        ------
        ValueError
            A value is not finite, or too large for its power to be.
        """
        stream = self.stream(len(log_mels), singers, seed, melody)
        frames = min(CHUNK_FRAMES, max(64, 2 * CHUNK_FRAMES // len(log_mels)))
        chunks = [stream.push(log_mels[:, first : first + frames]) for first in range(0, log_mels.shape[1], frames)]
        return np.concatenate([*chunks, stream.finish()], axis=1)

    def stream(
        self, items: int, singers: Sequence[int] | None = None, seed: int = 0, melody: np.ndarray | None = None
    ) -> "VocoderStream":
        """Start a stream of so many spectrograms, which are turned into audio while they are made.

        The melody, as for :meth:`__call__`, is known in advance.
        """
        ids = np.zeros(items, np.int32) if singers is None else np.asarray(singers)
        return VocoderStream(self, items, ids, seed, melody)


class VocoderStream:
    """Turns spectrograms into audio piece by piece; pieces of any lengths give the same audio as the whole at once.

    The audio lags behind by what the networks, the pitch decoder and the windows look ahead, some 80 frames.
    """

    def __init__(
        self, vocoder: Vocoder, items: int, singers: np.ndarray, seed: int, melody: np.ndarray | None = None
    ) -> None:
        config = vocoder.config
        self._melody = None if melody is None else FrameTracks(melody, None)
        self._vocoder, self._mel, self._singers, self._items = vocoder, config.mel, singers, items
        # Everything begins in silence, early enough for the first frame to have all its context.
        self._lead = 2 * config.context + 1 + 4
        silence = np.full((items, self._lead, config.mel.n_mels), config.mel.log_floor, np.float32)
        self._frames = _Buffer(silence, -self._lead)
        self._pushed = 0
        self._finished = False
        self._decoder = PitchDecoder(items)
        self._pitch_input = config.context - self._lead  # the next frame of which the pitch is asked
        self._raw = _Buffer(np.zeros((items, 0, 2)), self._pitch_input)  # log pitch and voicing, as decoded
        self._track = _Buffer(np.zeros((items, 0, 2)), self._pitch_input)  # smoothed
        self._rendered = -2  # the next frame to render
        self._pulses = PulseSource(config.mel.sample_rate, config.mel.hop_length, items)
        self._pulsed = -4  # the frame up to which there are pulses
        start = -2 * config.mel.hop_length - config.window // 2  # of the first subframe
        self._excitation = _Buffer(np.zeros((items, 0, 2), np.float32), start)
        self._skip_pulses = start + 4 * config.mel.hop_length
        self._rngs = [np.random.default_rng([seed, item]) for item in range(items)]
        self._overlap_add = OverlapAdd(items, config.subframe_hop, config.n_fft)
        self._skip = -start
        self._silent = np.full(items, 1 << 30)  # frames since sound
        self._correction = _Correction(config.mel, items)

    def push(self, log_mels: np.ndarray) -> np.ndarray:
        """Take further frames (items, frames, bands); give the samples (items, samples) that are complete."""
        if self._finished:
            raise ValueError("the stream is finished")
        mel_power(log_mels, self._mel)  # raises for values that cannot be used
        self._pushed += log_mels.shape[1]
        self._frames.append(np.maximum(log_mels, self._mel.log_floor).astype(np.float32))
        return self._advance()

    def finish(self) -> np.ndarray:
        """The rest of the audio; in all there are ``(frames - 1) * hop_length`` samples."""
        frames = 2 * self._vocoder.config.context + LAG + PITCH_BLOCK + 8
        self._frames.append(np.full((self._items, frames, self._mel.n_mels), self._mel.log_floor, np.float32))
        self._finished = True
        return self._advance()

    def _advance(self) -> np.ndarray:
        self._decode()
        self._smooth()
        samples = self._render()
        last = self._pushed - 1 if self._finished else None
        corrected = self._correction(samples, self._frames, last)
        behind = min(self._rendered, self._pitch_input) - self._vocoder.config.context
        self._frames.drop_before(min(self._correction.next, behind))
        return corrected

    def _decode(self) -> None:
        """Log pitch and voicing of the frames whose context has arrived."""
        context, config = self._vocoder.config.context, self._vocoder.config
        # In blocks, so that the pitch is the same to the last bit however the frames arrive: a network rounds
        # differently for other shapes, and the phase would sum the differences up.
        while (last := self._pitch_input + PITCH_BLOCK) <= self._frames.stop - context:
            x = config.normalisation.normalise(self._frames[self._pitch_input - context : last + context])
            logits = ops.convert_to_numpy(self._vocoder.logits(x.astype(np.float32), self._singers))
            logits = logits[:, context:-context]
            if self._melody:
                asked = self._melody.span(self._pitch_input, last).melody
                assert asked is not None
                logits = np.concatenate([logits[..., :-1] - melody_cost(asked), logits[..., -1:]], axis=-1)
            log_pitch, voiced = self._decoder(logits)
            self._raw.append(np.stack([log_pitch, voiced > 0.5], axis=-1))
            self._pitch_input = last

    def _smooth(self) -> None:
        """Remove voiced and unvoiced islands of one frame, and give unvoiced frames the pitch of a neighbour."""
        first, last = self._track.stop, self._raw.stop - 2
        if last <= first:
            return
        begin = max(first - 1, self._raw.start)
        log_pitch, raw = np.moveaxis(self._raw[begin : last + 2], -1, 0)
        voiced = raw.copy()
        voiced[:, 1:-1] = np.where(raw[:, :-2] == raw[:, 2:], raw[:, :-2], raw[:, 1:-1])
        keep = slice(first - begin, last - begin)
        following = slice(keep.start + 1, keep.stop + 1)
        # An unvoiced frame before a voiced one has its pitch, so that the voice does not begin with a glide; the
        # others keep the last one.
        log_pitch = np.where(voiced[:, keep] > 0, log_pitch[:, keep], log_pitch[:, following])
        use = (voiced[:, keep] > 0) | (voiced[:, following] > 0)
        held = self._track[first - 1 : first][:, 0, 0] if first > self._track.start else log_pitch[:, 0]
        for frame in range(last - first):
            held = log_pitch[:, frame] = np.where(use[:, frame], log_pitch[:, frame], held)
        self._track.append(np.stack([log_pitch, voiced[:, keep]], axis=-1))
        self._raw.drop_before(last - 1)

    def _render(self) -> np.ndarray:
        """Complete samples, before they are corrected."""
        config = self._vocoder.config
        first, last = self._rendered, self._track.stop - config.context
        if last <= first:
            return np.zeros((self._items, 0), np.float32)
        self._excite(last + 2)
        span = slice(first - config.context, last + config.context)
        log_mels, track = self._frames[span], self._track[span].astype(np.float32)
        x = config.normalisation.normalise(log_mels).astype(np.float32)
        envelopes = self._vocoder.envelopes((x, self._singers, track[..., 0], track[..., 1]))
        margin = config.context * config.subframes
        begin = first * config.mel.hop_length - config.window // 2
        end = begin + ((last - first) * config.subframes + 3) * config.subframe_hop
        excitation = self._excitation[begin:end]
        [subframes] = self._vocoder.filters.apply(
            envelopes[:, margin:-margin], *(np.ascontiguousarray(excitation[..., i]) for i in range(2))
        )
        gate = np.repeat(self._gate(log_mels), config.subframes, axis=1)
        sound = ops.convert_to_numpy(subframes) * gate[..., None]
        samples = self._overlap_add(sound)
        skipped = min(self._skip, samples.shape[1])
        self._skip -= skipped
        self._rendered = last
        self._track.drop_before(last - config.context)
        self._excitation.drop_before(last * config.mel.hop_length - config.window // 2)
        return samples[:, skipped:]

    def _gate(self, log_mels: np.ndarray) -> np.ndarray:
        """1 for the frames inside the context of ``log_mels`` that are near sound, 0 for those in a long silence.

        A rest keeps what the networks learned of the recordings' own silence, such as the hum of a room below the
        lowest band. Without it, the background would be chopped at every rest.
        """
        context = self._vocoder.config.context
        audible = np.any(log_mels > self._mel.log_floor, axis=-1)
        ahead = np.any(np.lib.stride_tricks.sliding_window_view(audible[:, context:], context + 1, axis=1), axis=-1)
        gate = np.zeros(ahead.shape, np.float32)
        for frame in range(ahead.shape[1]):
            self._silent = np.where(ahead[:, frame], 0, self._silent + 1)
            gate[:, frame] = self._silent * self._mel.seconds_per_frame <= LONGEST_REST
        return gate

    def _excite(self, frame: int) -> None:
        """Make pulses and noise up to the centre of a frame."""
        if frame <= self._pulsed:
            return
        track = self._track[self._pulsed : frame + 1]
        pulses = self._pulses(track[..., 0], track[..., 1])
        skipped = min(self._skip_pulses, pulses.shape[1])
        self._skip_pulses -= skipped
        pulses = pulses[:, skipped:]
        noise = np.stack([rng.standard_normal(pulses.shape[1], np.float32) for rng in self._rngs])
        self._excitation.append(np.stack([pulses, noise], axis=-1))
        self._pulsed = frame


class _Correction:
    """Pulls the mel power of a stream of audio towards the given one, by one step of the kind of Griffin-Lim's.

    See :mod:`melnet.audio.griffin_lim`. Bins that no band covers stay as they are. One step halves the error of the
    log-mel spectrogram; more would force gains on the signal that make it sound rough.
    """

    def __init__(self, mel: MelSpec, items: int) -> None:
        self._mel, self._half = mel, mel.n_fft // 2
        self._signal = _Buffer(np.zeros((items, self._half), np.float32), -self._half)
        self.next = 0  # frame
        self._add = OverlapAdd(items, mel.hop_length, mel.n_fft)
        self._energy = OverlapAdd(1, mel.hop_length, mel.n_fft)
        self._skip = self._half
        self._given = 0  # samples

    def __call__(self, samples: np.ndarray, log_mels: "_Buffer", last: int | None) -> np.ndarray:
        """Take further samples; give those that are complete, or all if ``last`` names the last frame."""
        mel, window = self._mel, hann_window(self._mel.n_fft)
        self._signal.append(samples)
        if last is not None:
            # The audio ends at the centre of the last frame.
            self._signal.cut(last * mel.hop_length, self._half)
        first, stop = self.next, (self._signal.stop - self._half) // mel.hop_length + 1
        outputs = []
        for begin in range(first, stop, CHUNK_FRAMES):
            end = min(begin + CHUNK_FRAMES, stop)
            span = self._signal[begin * mel.hop_length - self._half : (end - 1) * mel.hop_length + self._half]
            frames = np.stack([frame_signal(item, mel.n_fft, mel.hop_length) for item in span])
            corrected = self._step(frames * window, log_mels[begin:end]) * window
            total = self._add(corrected)
            energy = self._energy(np.broadcast_to(np.square(window), (1, end - begin, mel.n_fft)).astype(np.float32))
            outputs.append(total / np.maximum(energy, 0.01))
        self.next = max(first, stop)
        if last is not None:  # what the last frames reach beyond their hop
            flush = -(-mel.n_fft // mel.hop_length)
            silence = np.zeros((len(samples), flush, mel.n_fft), np.float32)
            outputs.append(self._add(silence) / np.maximum(self._energy(silence[:1]), 0.01))
        self._signal.drop_before(self.next * mel.hop_length - self._half)
        out = np.concatenate([np.zeros((len(samples), 0), np.float32), *outputs], axis=1)
        skipped = min(self._skip, out.shape[1])
        self._skip -= skipped
        out = out[:, skipped:]
        if last is not None:
            out = out[:, : last * mel.hop_length - self._given]
        self._given += out.shape[1]
        return out

    def _step(self, frames: np.ndarray, log_mels: np.ndarray) -> np.ndarray:
        mel = self._mel
        bank = filterbank(mel)
        filters, bins = bank
        shares = bank.shares
        wanted = mel_power(log_mels, mel)
        spectrum = scipy.fft.rfft(frames, axis=-1)
        covered = spectrum[..., bins]
        present = (np.square(covered.real) + np.square(covered.imag)) @ filters.T
        ratio = wanted / np.maximum(present, np.float32(1e-2 * mel.floor))
        gain = np.sqrt(np.clip(ratio, 1 / LARGEST_CORRECTION, LARGEST_CORRECTION) @ shares)
        spectrum[..., bins] = covered * np.where(shares.sum(axis=0) > 0, gain, 1)
        return scipy.fft.irfft(spectrum, n=mel.n_fft, axis=-1)


class _Buffer:
    """A moving part of a long array (items, time, ...); ``buffer[a:b]`` counts time from the array's own zero."""

    def __init__(self, values: np.ndarray, start: int) -> None:
        self._values, self.start = values, start

    @property
    def stop(self) -> int:
        return self.start + self._values.shape[1]

    def append(self, values: np.ndarray) -> None:
        self._values = np.concatenate([self._values, values], axis=1)

    def drop_before(self, time: int) -> None:
        if (count := min(time, self.stop) - self.start) > 0:
            self._values, self.start = self._values[:, count:], self.start + count

    def cut(self, stop: int, padding: int) -> None:
        """End at ``stop``, followed by so many zeros."""
        values = self._values[:, : max(0, stop - self.start)]
        self._values = np.pad(values, ((0, 0), (0, padding + stop - self.start - values.shape[1])))

    def __getitem__(self, span: slice) -> np.ndarray:
        first, last = span.start - self.start, span.stop - self.start
        assert 0 <= first <= last <= self._values.shape[1], (span, self.start, self.stop)
        return self._values[:, first:last]
