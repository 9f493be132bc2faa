"""Find truncated and damaged sound files.

libsndfile reads what is left of a truncated file without a word, and drops or mutes damaged parts of some formats.
So, before any sample is used, the length that a file declares is compared with what it holds. A file whose format or
header declares no length cannot be told from a truncated one and is refused.

One cut goes unnoticed, because it leaves a valid file: an MP3 without a frame count (a Xing, Info or VBRI header), cut
exactly between two frames.
"""

import hashlib
import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from melnet.errors import MelnetError

BLOCK = 2**16  # frames decoded at a time
UNKNOWN = "its header gives no length, as of a recording never finished; whether it is whole cannot be told"
# libsndfile refuses truncated files of these formats, or logs that they are shorter than their header says. What it
# says of FORM, the whole of an 8SVX file, does not count: bytes after the samples are no damage.
LOGGED = {"AU", "HTK", "MAT4", "SVX", "VOC", "WVE"}
COMPLAINT = re.compile(r"^(?!FORM).*(?:\(should be|length .*should be|truncated|short read).*", re.I | re.M)


class UnusableAudio(MelnetError):
    """A file or signal that cannot be used; the message is the reason, without the file's name."""


class NotAudio(UnusableAudio):
    """A file in no format that can be read."""


def whole_frames(file: BinaryIO, sound: soundfile.SoundFile) -> int:
    """Check that a file is whole and return the number of frames (samples per channel) that it must decode to.

    ``sound`` is the same file as ``file``, opened once more; both are read from their beginning, and ``sound`` is left
    there. Decoding is up to the caller, except that of FLAC, whose header has a checksum of all samples.

    Raises
    ------
    UnusableAudio
        The file is truncated or damaged, or nothing says how long it should be.

    >>> import io
    >>> recording = io.BytesIO()
    >>> soundfile.write(recording, np.zeros(800), 8000, format="WAV")
    >>> cut = recording.getvalue()[:-2]
    >>> whole_frames(io.BytesIO(cut), soundfile.SoundFile(io.BytesIO(cut)))
    Traceback (most recent call last):
    melnet.audio.integrity.UnusableAudio: truncated: its header claims 1600 bytes of audio, the file holds 1598
    """
    match sound.format:
        case "WAV" | "WAVEX" | "RF64" | "W64" | "AIFF" | "CAF":
            _check_chunks(file, sound.frames)
        case "FLAC":
            _check_flac(file, sound)
        case "OGG":
            _check_ogg(file)
        case "MP3":
            return _mp3_frames(file, sound.frames)
        case "NIST":
            _check_nist(file, sound.frames)
        case name if name in LOGGED:
            _check_log(sound.extra_info)
        case name:
            raise UnusableAudio(f"whether a file of format {name} is whole cannot be told; convert it to FLAC or WAV")
    return int(sound.frames)


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _check_length(claimed: int, held: int, unit: str) -> None:
    if claimed > held:
        raise UnusableAudio(f"truncated: its header claims {claimed} {unit}, the file holds {held}")


def _check_log(log: str) -> None:
    if re.search(r"Data Size *: -1\b", log):  # AU
        raise UnusableAudio(UNKNOWN)
    if complaint := COMPLAINT.search(log):
        raise UnusableAudio(f"truncated or damaged; libsndfile notes: {' '.join(complaint[0].split())}")


def _check_nist(file: BinaryIO, frames: int) -> None:
    # libsndfile logs nothing of the header, but it is text.
    claimed = re.search(rb"\nsample_count -i (\d+)", _read(file, 0, 1024))
    if claimed is None:
        raise UnusableAudio(UNKNOWN)
    _check_length(int(claimed[1]), frames, "frames")


# By the file's first 4 bytes (of AIFF, the type of its form): where the first chunk begins; name and length in a
# chunk's header; of how many bytes a chunk fills a multiple; how many bytes of its header the length includes.
_LAYOUTS = {
    b"RIFF": (12, "<4sI", 2, 0),
    b"RIFX": (12, ">4sI", 2, 0),
    b"RF64": (12, "<4sI", 2, 0),
    b"riff": (40, "<16sq", 8, 24),  # W64
    b"AIFF": (12, ">4sI", 2, 0),
    b"AIFC": (12, ">4sI", 2, 0),
    b"caff": (8, ">4sq", 1, 0),  # of CAF, libsndfile's log overlooks up to 11 missing bytes
}
_UNLIMITED = (-1, 2**32 - 1, 2**64 - 1)  # lengths that stand for "until the file ends"


def _check_chunks(file: BinaryIO, frames: int) -> None:
    """Compare the length of the chunk of samples, and the number of frames in AIFF's header, with the file."""
    size = file.seek(0, os.SEEK_END)
    magic, _, form = struct.unpack("4s4s4s", _read(file, 0, 12))
    audio = b"SSND" if magic == b"FORM" else b"data"
    long_length = 0  # of the samples, where a length of 32 bits cannot hold it
    for name, start, length in _chunks(file, size, form if magic == b"FORM" else magic):
        if name == b"ds64":
            long_length = int.from_bytes(_read(file, start + 8, 8), "little")
        elif name == b"COMM":
            _check_length(int.from_bytes(_read(file, start + 2, 4), "big"), frames, "frames")
        elif name == audio:
            if length in _UNLIMITED and long_length:
                length = long_length
            if length in _UNLIMITED or (length == 0 and size > start):
                raise UnusableAudio(UNKNOWN)
            _check_length(length, size - start, "bytes of audio")
            if magic in (b"RIFF", b"RIFX") and size - start >= 2**32:
                raise UnusableAudio("longer than a WAV header can say (4 GiB); convert it to FLAC, W64 or RF64")
            return
    raise UnusableAudio(f"truncated or damaged: its chunk {audio.decode()!r} cannot be found")


def _chunks(file: BinaryIO, size: int, container: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the first byte and the claimed length of each chunk."""
    if container not in _LAYOUTS:
        raise UnusableAudio(f"damaged: unknown kind of container {container!r}")
    position, header, multiple, counted = _LAYOUTS[container]
    while position + struct.calcsize(header) <= size:
        name, length = struct.unpack(header, _read(file, position, struct.calcsize(header)))
        position += struct.calcsize(header)
        length -= counted
        yield name[:4], position, length
        if length < 0:
            return
        position += length + -length % multiple


def _after_id3(file: BinaryIO) -> int:
    """Return the first byte after the ID3v2 tags that a FLAC or MP3 file may begin with."""
    position = 0
    while True:
        tag = _read(file, position, 10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            return position
        length = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if tag[5] & 0x10 else 0)  # a flag announces a footer


def _check_flac(file: BinaryIO, sound: soundfile.SoundFile) -> None:
    """Compare the decoded samples with their MD5 sum, which most encoders write into the header."""
    head = _read(file, _after_id3(file), 42)
    if len(head) < 42 or head[:4] != b"fLaC":
        raise UnusableAudio("damaged: no FLAC stream header")
    packed = int.from_bytes(head[18:26], "big")  # rate (20 bits), channels (3), bits (5), frames (36)
    bits = (packed >> 36 & 0x1F) + 1
    if not packed & (2**36 - 1):
        raise UnusableAudio(UNKNOWN)
    expected = head[26:42]
    if not any(expected):  # the encoder did not compute it
        return
    digest = hashlib.md5(usedforsecurity=False)
    block = np.empty((BLOCK, sound.channels), np.int32)
    while len(part := sound.read(out=block)):
        # libsndfile puts the sample into the upper bits; the checksum is over the lower bytes only.
        samples = (part >> (32 - bits)).astype("<i4").reshape(-1, 1).view(np.uint8)
        digest.update(samples[:, : (bits + 7) // 8].tobytes())
    sound.seek(0)
    if digest.digest() != expected:
        raise UnusableAudio("damaged or truncated: its samples differ from the checksum in its header")


_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """Return the CRC-32 of Ogg: zlib's polynomial, most significant bit first, without inversions."""
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def _check_ogg(file: BinaryIO) -> None:
    """Check each page (RFC 3533), that none is missing, that every stream ends, and that no stream follows another."""
    file.seek(0)
    following: dict[int, int] = {}  # number of the next page, by serial number of the stream
    ended: set[int] = set()
    begun = False  # the first page that begins no stream comes after the first pages of all streams
    for page in itertools.count():
        head = file.read(27)
        if not head:
            break
        table = file.read(head[-1])
        body = file.read(sum(table))
        if len(head) < 27 or len(table) < head[26] or len(body) < sum(table):
            raise UnusableAudio(f"truncated: it ends inside Ogg page {page}")
        flags, serial, number, crc = struct.unpack("<5xB8xIIIx", head)
        if head[:4] != b"OggS" or _ogg_crc(head[:22] + bytes(4) + head[26:] + table + body) != crc:
            raise UnusableAudio(f"damaged: Ogg page {page} fails its checksum")
        if flags & 2:  # first page of a stream
            if begun:
                raise UnusableAudio("several Ogg streams one after another, of which only the first can be read")
            following[serial] = number
        else:
            begun = True
        if following.get(serial) != number or serial in ended:
            raise UnusableAudio(f"damaged: Ogg pages are missing before page {page}")
        following[serial] = number + 1
        if flags & 4:  # last page of a stream
            ended.add(serial)
    if ended != set(following):
        raise UnusableAudio("truncated: its Ogg stream has no last page")


# kbit/s by MPEG version (1; 2 and 2.5) and layer, as ISO/IEC 11172-3 and 13818-3 tabulate them; 0 is free format.
_KBITS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_TRAILERS = (b"TAG", b"APET", b"LYRI")  # ID3v1, APE, Lyrics3
_INDEX = re.compile(rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)|VBRI.{10}(....)", re.DOTALL)
_LONGEST_PADDING = 2 * 4095  # samples that a LAME header may take off the two ends
_LONGEST_TAIL = 4096  # bytes of zeros after the last frame; more are a gap, such as an unfinished download leaves


def _mp3_frames(file: BinaryIO, frames: int) -> int:
    """Compare the number of MPEG frames with the index (Xing, Info, VBRI) and with the decoder's length."""
    first, count = b"", 0
    for frame in _mpeg_frames(file):
        first = first or frame
        count += 1
    samples = _mpeg_lengths(first, 0)[1] if first else 0  # per frame
    index = _INDEX.search(first[:80])
    if index is None:
        if frames < count * samples:
            raise UnusableAudio(
                "an MP3 of variable bit rate without index, of which only a part can be read; convert it"
            )
        return count * samples
    claimed, held = int.from_bytes(index[1] or index[2], "big"), count - 1  # the index is a frame itself
    if claimed != held or frames < claimed * samples - _LONGEST_PADDING:
        raise UnusableAudio(f"truncated or damaged: its header claims {claimed} MPEG frames, the file holds {held}")
    return frames


def _mpeg_frames(file: BinaryIO) -> Iterator[bytes]:
    size, position, found = file.seek(0, os.SEEK_END), _after_id3(file), 0
    while position < size:
        head = _read(file, position, 4)
        if head.startswith(_TRAILERS):
            return
        if not any(head):  # zeros before the first frame, or after the last
            if found and size - position <= _LONGEST_TAIL:
                return
            if found:
                raise UnusableAudio(f"truncated or damaged: a gap at byte {position}")
            position += 1
            continue
        if len(head) == 4:
            length, _ = _mpeg_lengths(head, position)
            frame = head + file.read(length - 4)
        if len(head) < 4 or len(frame) < length:
            raise UnusableAudio(f"truncated: it ends inside MPEG frame {found + 1}")
        yield frame
        found += 1
        position += length


def _mpeg_lengths(head: bytes, position: int) -> tuple[int, int]:
    """Return the length in bytes and in samples of the MPEG audio frame with these first 4 bytes."""
    version = {3: 1, 2: 2, 0: 2.5}.get(head[1] >> 3 & 3)
    layer = 4 - (head[1] >> 1 & 3)
    rate_code, kbit_code = head[2] >> 2 & 3, head[2] >> 4
    if head[0] != 0xFF or head[1] < 0xE0 or version is None or layer == 4 or rate_code == 3 or kbit_code in (0, 15):
        raise UnusableAudio(f"damaged: no MPEG frame at byte {position}")
    family = 1 if version == 1 else 2
    bits_per_second = 1000 * _KBITS[family, layer][kbit_code]
    sample_rate = (44100, 48000, 32000)[rate_code] // {1: 1, 2: 2, 2.5: 4}[version]
    samples = {1: 384, 2: 1152, 3: 1152 // family}[layer]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits_per_second // sample_rate + padding) * 4, samples
    return samples // 8 * bits_per_second // sample_rate + padding, samples
