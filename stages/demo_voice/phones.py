"""The speech sounds (phones) of the synthetic singer: formants, bandwidths and gains of vowels and consonants."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Phone:
    """A speech sound, as targets for the vocal tract and its sources; gains are linear, 1 is that of a sung vowel."""

    formants_hz: tuple[float, ...]
    bandwidths_hz: tuple[float, ...]
    voice: float = 1.0
    aspiration: float = 0.02  # noise of the glottis, filtered by the formants
    frication: tuple[float, float, float] = (0.0, 0.0, 0.0)  # noise of a constriction, gains in FRICATION_BANDS
    nasality: float = 0.0  # 0 mouth open, nose closed; 1 the reverse
    antiformant_hz: float = 1000.0  # absorbed by the closed mouth in a nasal


def _mouth(f1: float, f2: float, f3: float, b1: float, b2: float, b3: float, **sources: Any) -> Phone:
    # Klatt's table is a man's; a woman's tract is shorter by about an eighth (Fant 1966).
    return Phone((f1 * 1.12, f2 * 1.12, f3 * 1.12, 3500, 4950), (b1, b2, b3, 250, 300), **sources)


# /a e i o u/: the sung vowels of an alto in IRCAM's Chant (Rodet, Potard & Barrière 1984; table in the Csound manual).
# /ɛ ʌ/: F1 to F3 of women in Peterson & Barney (1952), the rest as in /e/ and /a/.
# Gains (voice=) even out the loudness, as a singer does.
VOWELS = {
    "a": Phone((800, 1150, 2800, 3500, 4950), (80, 90, 120, 130, 140)),
    "e": Phone((400, 1600, 2700, 3300, 4950), (60, 80, 120, 150, 200), voice=1.2),
    "i": Phone((350, 1700, 2700, 3700, 4950), (50, 100, 120, 150, 200), voice=0.8),
    "o": Phone((450, 800, 2830, 3500, 4950), (70, 80, 100, 130, 135), voice=1.2),
    "u": Phone((325, 700, 2530, 3500, 4950), (50, 60, 170, 180, 200), voice=0.6),
    "ɛ": Phone((610, 2330, 2990, 3500, 4950), (70, 90, 120, 150, 200)),
    "ʌ": Phone((760, 1400, 2780, 3500, 4950), (80, 90, 120, 130, 140)),
}
REST = replace(VOWELS["ʌ"], voice=0.0, aspiration=0.0)
BREATH = replace(VOWELS["ʌ"], bandwidths_hz=(250, 250, 300, 300, 300), voice=0.0, aspiration=0.03)

_S = _mouth(320, 1390, 2530, 200, 80, 200, voice=0.0, aspiration=0.0)
_SH = _mouth(300, 1840, 2750, 200, 100, 300, voice=0.0, aspiration=0.0)
_T = _mouth(400, 1600, 2600, 300, 120, 250, voice=0.0, aspiration=0.0)
_K = _mouth(300, 1990, 2850, 250, 160, 330, voice=0.0, aspiration=0.0)
# Formants and bandwidths: Klatt (1980), table III. Antiformants of the nasals: Fujimura (1962).
# Each consonant is a sequence of (seconds, phone): a fricative swells and ends; a plosive is a gap, a burst, a breath.
CONSONANTS: dict[str, tuple[tuple[float, Phone], ...]] = {
    "m": ((0.09, _mouth(480, 1270, 2130, 40, 200, 200, voice=0.6, nasality=1.0, antiformant_hz=1000.0)),),
    "n": ((0.08, _mouth(480, 1340, 2470, 40, 300, 300, voice=0.6, nasality=1.0, antiformant_hz=1700.0)),),
    "l": ((0.07, _mouth(310, 1050, 2880, 50, 100, 280, voice=0.5)),),
    "r": ((0.07, _mouth(310, 1060, 1380, 70, 100, 120, voice=0.5)),),
    "s": (
        (0.03, replace(_S, frication=(0.0, 0.0, 0.04))),
        (0.07, replace(_S, frication=(0.0, 0.0, 0.1))),
        (0.02, replace(_S, frication=(0.0, 0.0, 0.05))),
    ),
    "sh": (
        (0.03, replace(_SH, frication=(0.0, 0.05, 0.0))),
        (0.07, replace(_SH, frication=(0.0, 0.12, 0.03))),
        (0.02, replace(_SH, frication=(0.0, 0.05, 0.0))),
    ),
    "t": ((0.06, _T), (0.012, replace(_T, frication=(0.0, 0.08, 0.12))), (0.02, replace(_T, aspiration=0.06))),
    "k": ((0.06, _K), (0.016, replace(_K, frication=(0.2, 0.05, 0.0))), (0.03, replace(_K, aspiration=0.08))),
}
