"""Whether a sound file is whole.

libsndfile reads what is left of a truncated file and says nothing, and drops or mutes damaged parts of some formats.
So what each container claims about itself is compared here with the file before a sample of it is used. A file whose
format or header gives no length cannot be told from a truncated one and counts as unusable. One cut stays invisible,
because it leaves a valid file: an MP3 without frame count (Xing, Info or VBRI), cut exactly between two frames.
"""

import hashlib
import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

BLOCK = 2**16  # frames decoded at a time
UNKNOWN = "its header gives no length, as of a recording never finished; whether it is whole cannot be told"
# Formats whose truncation libsndfile notes in its log (or refuses to open); of the rest nothing can be known.
LOGGED = {"VOC", "MAT4", "WVE", "HTK"}
LOG_COMPLAINT = re.compile(r".*(?:should be|truncated|short read).*", re.IGNORECASE)


class UnusableAudio(ValueError):
    """A file or signal that cannot be used; the message is the reason, without the file's name."""


class NotAudio(UnusableAudio):
    """A file in no format that can be read."""


def whole_frames(file: BinaryIO, sound: soundfile.SoundFile) -> int:
    """Check the container and give the number of frames that it must decode to.

    Parameters
    ----------
    file
        The raw bytes; its position is not kept.
    sound
        The same file, open for decoding at its first frame; it is rewound.

    Raises
    ------
    UnusableAudio
        The file is truncated or damaged, or nothing says how long it should be.
    """
    size = os.fstat(file.fileno()).st_size
    match sound.format:
        case "WAV" | "WAVEX" | "RF64" | "W64" | "AIFF" | "SVX" | "CAF":
            _check_chunks(file, size, sound.frames)
        case "AU":
            _check_au(file, size)
        case "NIST":
            _check_nist(file, sound.frames)
        case "FLAC":
            _check_flac(file, sound)
        case "OGG":
            _check_ogg(file, size)
        case "MP3":
            return _mp3_frames(file, size, sound.frames)
        case name if name in LOGGED:
            if complaint := LOG_COMPLAINT.search(sound.extra_info):
                raise UnusableAudio(f"truncated: {' '.join(complaint[0].split())}")
        case name:
            raise UnusableAudio(f"whether a file of format {name} is whole cannot be told; convert it to FLAC or WAV")
    return int(sound.frames)


class _Layout(NamedTuple):
    """How a container made of chunks is laid out."""

    start: int  # byte of the first chunk
    header: struct.Struct  # name and length of a chunk
    padded: int  # a chunk ends at a multiple of this many bytes
    counted: int  # bytes of the header that the length includes
    audio: bytes  # name of the chunk that holds the samples


_LAYOUTS = {
    b"RIFF": _Layout(12, struct.Struct("<4sI"), 2, 0, b"data"),
    b"RIFX": _Layout(12, struct.Struct(">4sI"), 2, 0, b"data"),
    b"RF64": _Layout(12, struct.Struct("<4sI"), 2, 0, b"data"),
    b"riff": _Layout(40, struct.Struct("<16sq"), 8, 24, b"data"),
    b"AIFF": _Layout(12, struct.Struct(">4sI"), 2, 0, b"SSND"),
    b"AIFC": _Layout(12, struct.Struct(">4sI"), 2, 0, b"SSND"),
    b"8SVX": _Layout(12, struct.Struct(">4sI"), 2, 0, b"BODY"),
    b"16SV": _Layout(12, struct.Struct(">4sI"), 2, 0, b"BODY"),
    b"caff": _Layout(8, struct.Struct(">4sq"), 1, 0, b"data"),
}


def _check_chunks(file: BinaryIO, size: int, frames: int) -> None:
    file.seek(0)
    magic, _, form = struct.unpack("4s4s4s", file.read(12))
    layout = _LAYOUTS.get(form if magic == b"FORM" else magic)
    if layout is None:
        raise UnusableAudio(f"damaged: unknown kind of container {magic!r}")
    long_length = None  # of the audio, where the container says it outside the chunk itself
    for name, start, length in _chunks(file, size, layout):
        if name == b"ds64":
            file.seek(start + 8)
            (long_length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        elif name == b"COMM":
            file.seek(start + 2)
            (claimed,) = struct.unpack(">I", file.read(4).ljust(4, b"\xff"))
            if claimed > frames:
                raise UnusableAudio(f"truncated: its header claims {claimed} frames, the file holds {frames}")
        elif name == layout.audio:
            unlimited = length in (-1, 2**32 - 1)
            length = long_length if unlimited and long_length else length
            if length in (-1, 2**32 - 1, 2**64 - 1) or (length == 0 and size > start):
                raise UnusableAudio(UNKNOWN)
            _check_length(length, size - start)
            if magic in (b"RIFF", b"RIFX") and size - start >= 2**32:
                raise UnusableAudio("longer than a WAV header can say (4 GiB); convert it to FLAC, W64 or RF64")
            return
    raise UnusableAudio(f"truncated or damaged: its chunk {layout.audio.decode()!r} cannot be found")


def _chunks(file: BinaryIO, size: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and claimed length of each chunk."""
    position = layout.start
    while position + layout.header.size <= size:
        file.seek(position)
        name, length = layout.header.unpack(file.read(layout.header.size))
        length -= layout.counted
        position += layout.header.size
        yield name[:4], position, length
        if length < 0:
            return
        position += length + -length % layout.padded


def _check_length(claimed: int, held: int) -> None:
    if claimed > held:
        raise UnusableAudio(f"truncated: its header claims {claimed} bytes of audio, the file holds {held}")


def _check_au(file: BinaryIO, size: int) -> None:
    file.seek(0)
    magic = file.read(4)
    start, length = struct.unpack(">II" if magic == b".snd" else "<II", file.read(8))
    if length == 2**32 - 1 or (length == 0 and size > start):
        raise UnusableAudio(UNKNOWN)
    _check_length(length, size - start)


def _check_nist(file: BinaryIO, frames: int) -> None:
    file.seek(0)
    claimed = re.search(rb"\nsample_count -i (\d+)", file.read(1024))
    if claimed is None:
        raise UnusableAudio(UNKNOWN)
    if int(claimed[1]) > frames:
        raise UnusableAudio(f"truncated: its header claims {int(claimed[1])} frames, the file holds {frames}")


def _after_id3(file: BinaryIO) -> int:
    """First byte after the ID3v2 tags that may open a FLAC or MP3 file."""
    position = 0
    while True:
        file.seek(position)
        tag = file.read(10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            return position
        length = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if tag[5] & 0x10 else 0)  # a flag announces a footer


def _check_flac(file: BinaryIO, sound: soundfile.SoundFile) -> None:
    """Decode the whole stream against the MD5 of its samples, which most encoders put into the header."""
    file.seek(_after_id3(file))
    head = file.read(42)
    if len(head) < 42 or head[:4] != b"fLaC":
        raise UnusableAudio("damaged: no FLAC stream header")
    packed = int.from_bytes(head[18:26], "big")  # rate (20 bits), channels (3), bits (5), frames (36)
    bits = (packed >> 36 & 0x1F) + 1
    if not packed & (2**36 - 1):
        raise UnusableAudio(UNKNOWN)
    expected = head[26:42]
    if expected == bytes(16):  # the encoder did not compute it
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
    """CRC-32 as in Ogg: zlib's polynomial, most significant bit first, without inversions."""
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def _check_ogg(file: BinaryIO, size: int) -> None:
    """Every page intact and in order (RFC 3533), every stream ended, and only one stream in time."""
    file.seek(0)
    following: dict[int, int] = {}  # next page number of each stream that has begun
    ended: set[int] = set()
    begun = False  # with the first page that begins no stream, all streams of the file are known
    for page in itertools.count():
        head = file.read(27)
        if not head:
            break
        table = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(table))
        if len(head) < 27 or len(table) < head[26] or len(body) < sum(table):
            raise UnusableAudio(f"truncated: it ends inside Ogg page {page}")
        if head[:4] != b"OggS" or _ogg_crc(head[:22] + bytes(4) + head[26:] + table + body) != _u32(head, 22):
            raise UnusableAudio(f"damaged: Ogg page {page} fails its checksum")
        flags, serial, number = head[5], _u32(head, 14), _u32(head, 18)
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


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


# kbit/s of MPEG layers, and Hz, as ISO/IEC 11172-3 and 13818-3 tabulate them; row by version, 0 is free format.
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


def _mp3_frames(file: BinaryIO, size: int, frames: int) -> int:
    """Walk from frame to frame; compare their number with the index (Xing, Info, VBRI) and the decoder's length."""
    position = _after_id3(file)
    file.seek(position)
    first = b""
    count = samples = 0
    while position < size:
        head = file.read(4)
        if head.startswith(_TRAILERS):
            break
        if not any(head):  # zeros before the first frame, or after the last
            if count and size - position <= _LONGEST_TAIL:
                break
            if count:
                raise UnusableAudio(f"truncated or damaged: a gap at byte {position}")
            position += 1
            file.seek(position)
            continue
        if len(head) < 4:
            raise UnusableAudio(f"truncated: it ends inside MPEG frame {count + 1}")
        length, samples = _mp3_frame(head, position)
        body = file.read(length - 4)
        if len(body) < length - 4:
            raise UnusableAudio(f"truncated: it ends inside MPEG frame {count + 1}")
        first = first or head + body
        count += 1
        position += length
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


def _mp3_frame(head: bytes, position: int) -> tuple[int, int]:
    """Length in bytes and in samples of the MPEG audio frame with these first 4 bytes."""
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
