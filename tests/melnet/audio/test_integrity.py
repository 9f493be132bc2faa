"""Truncated and damaged files are refused, whole ones accepted."""

import itertools
import struct

import numpy as np
import pytest
import soundfile

from melnet.audio.convert import convert, inspect, mono_blocks
from melnet.audio.integrity import NotAudio, UnusableAudio

# Format, subtype, channels, Hz.
KINDS = [
    ("WAV", "PCM_U8", 2, 48000),
    ("WAV", "PCM_16", 2, 44100),
    ("WAV", "PCM_24", 1, 48000),
    ("WAV", "FLOAT", 2, 48000),
    ("WAV", "DOUBLE", 1, 48000),
    ("WAV", "ALAW", 2, 8000),
    ("WAV", "ULAW", 1, 8000),
    ("WAV", "IMA_ADPCM", 2, 22050),
    ("WAVEX", "PCM_16", 64, 8000),
    ("RF64", "PCM_24", 2, 48000),
    ("W64", "PCM_16", 2, 48000),
    ("AIFF", "PCM_16", 2, 44100),
    ("AIFF", "FLOAT", 1, 44100),
    ("AU", "PCM_16", 2, 44100),
    ("AU", "G721_32", 1, 8000),
    ("CAF", "PCM_16", 2, 48000),
    ("CAF", "PCM_24", 1, 48000),
    ("CAF", "FLOAT", 1, 48000),
    ("CAF", "ALAC_16", 2, 48000),
    ("SVX", "PCM_S8", 1, 22050),
    ("SVX", "PCM_16", 1, 44100),
    ("NIST", "PCM_16", 2, 16000),
    ("NIST", "ULAW", 1, 8000),
    ("MAT4", "PCM_16", 1, 44100),
    ("MAT4", "FLOAT", 2, 48000),
    ("HTK", "PCM_16", 1, 16000),
    ("WVE", "ALAW", 1, 8000),
    ("VOC", "PCM_U8", 1, 22050),
    ("VOC", "PCM_16", 2, 44100),
    ("FLAC", "PCM_S8", 1, 16000),
    ("FLAC", "PCM_16", 2, 44100),
    ("FLAC", "PCM_24", 1, 48000),
    ("OGG", "VORBIS", 2, 44100),
    ("OGG", "OPUS", 1, 48000),
    ("MP3", "MPEG_LAYER_III", 2, 44100),
    ("MP3", "MPEG_LAYER_III", 1, 22050),
]


def noise(frames, channels=1):
    return np.random.default_rng(0).uniform(-0.3, 0.3, (frames, channels))


def sound_bytes(path, kind):
    container, subtype, channels, sample_rate = kind
    soundfile.write(path, noise(sample_rate // 2 + 16, channels), sample_rate, format=container, subtype=subtype)
    return path.read_bytes()


def check(path, content):
    """Inspect and decode a file with these bytes; return the number of frames."""
    path.write_bytes(content)
    source = inspect(path)
    return sum(len(block) for block in mono_blocks(source, 10000))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_whole_files_pass_and_truncated_ones_do_not(tmp_path, kind):
    path = tmp_path / "file"  # the name says nothing about the format
    whole = sound_bytes(path, kind)
    frames = check(path, whole)
    assert frames >= kind[3] // 2 + 16
    near_the_end = [*range(1, 17), 27, 28, 50, 100, 128, 500]
    cuts = {len(whole) - near for near in near_the_end} | set(np.linspace(0, len(whole) - 600, 12, dtype=int).tolist())
    for cut in sorted(cuts):
        try:
            passed = check(path, whole[:cut])
        except UnusableAudio:
            continue
        # The last byte of these formats can be padding or an end mark.
        assert (passed, len(whole) - cut) == (frames, 1), f"cut at byte {cut} of {len(whole)}"
        assert kind[0] in {"CAF", "VOC"}


@pytest.mark.parametrize("kind", [("FLAC", "PCM_16", 1, 44100), ("OGG", "VORBIS", 1, 44100), ("OGG", "OPUS", 1, 48000)])
def test_damage_in_the_middle_is_found(tmp_path, kind):
    path = tmp_path / "file"
    whole = sound_bytes(path, kind)
    for position in np.linspace(len(whole) // 5, len(whole) - 50, 7, dtype=int):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        with pytest.raises(UnusableAudio, match="damaged"):
            check(path, bytes(damaged))


def test_flac_with_other_samples_than_its_checksum_says(tmp_path):
    path = tmp_path / "file"
    whole = bytearray(sound_bytes(path, ("FLAC", "PCM_24", 2, 48000)))
    whole[30] ^= 1  # a byte of the MD5 of the samples
    with pytest.raises(UnusableAudio, match="checksum"):
        check(path, bytes(whole))
    whole[26:42] = bytes(16)  # as of an encoder that computes none
    assert check(path, bytes(whole)) == 24016


@pytest.mark.parametrize(
    ("kind", "offset", "field"),
    [
        (("WAV", "PCM_16", 1, 8000), 40, struct.pack("<I", 0xFFFFFFFF)),
        (("WAV", "PCM_16", 1, 8000), 40, struct.pack("<I", 0)),
        (("AU", "PCM_16", 1, 8000), 8, struct.pack(">I", 0xFFFFFFFF)),
        (("FLAC", "PCM_16", 1, 8000), 22, bytes(4)),
    ],
)
def test_recordings_of_unknown_length_are_rejected_as_such(tmp_path, kind, offset, field):
    path = tmp_path / "file"
    content = bytearray(sound_bytes(path, kind))
    content[offset : offset + len(field)] = field
    with pytest.raises(UnusableAudio, match="gives no length"):
        check(path, bytes(content))


def test_a_header_that_claims_hours_is_rejected(tmp_path):
    path = tmp_path / "file"
    content = bytearray(sound_bytes(path, ("WAV", "PCM_16", 1, 8000)))
    content[40:44] = struct.pack("<I", 8000 * 2 * 3600 * 5)
    with pytest.raises(UnusableAudio, match=r"claims 288000000 bytes of audio, the file holds 8032"):
        check(path, bytes(content))


@pytest.mark.parametrize(
    ("kind", "mark", "offset", "claimed"),
    [
        (("AU", "PCM_16", 1, 8000), b".snd", 8, struct.pack(">I", 9000)),
        (("SVX", "PCM_16", 1, 8000), b"BODY", 4, struct.pack(">I", 9000)),
        (("VOC", "PCM_16", 1, 8000), b"Creative", 27, struct.pack("<I", 9000)[:3]),
        (("WVE", "ALAW", 1, 8000), b"ALaw", 18, struct.pack(">I", 9000)),
        (("MAT4", "PCM_16", 1, 8000), b"wavedata", -12, struct.pack("<I", 9000)),
        (("NIST", "PCM_16", 1, 8000), b"sample_count -i ", 16, b"9000"),
        (("CAF", "PCM_16", 1, 8000), b"data", 4, struct.pack(">q", 8038)),
    ],
)
def test_rare_formats_whose_header_claims_more_than_they_hold(tmp_path, kind, mark, offset, claimed):
    path = tmp_path / "file"
    content = bytearray(sound_bytes(path, kind))
    start = content.index(mark) + offset
    content[start : start + len(claimed)] = claimed
    with pytest.raises(UnusableAudio, match="truncated"):
        check(path, bytes(content))


def test_chunks_around_the_samples_do_not_matter(tmp_path):
    path = tmp_path / "file"
    whole = sound_bytes(path, ("WAV", "PCM_16", 1, 8000))
    note = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"  # of odd length, padded
    assert check(path, whole[:36] + note + whole[36:] + note) == 4016
    assert check(path, whole + note[:9]) == 4016


def test_aiff_whose_frame_count_exceeds_its_samples(tmp_path):
    path = tmp_path / "file"
    whole = sound_bytes(path, ("AIFF", "PCM_16", 1, 44100))
    offset = whole.index(b"COMM") + 10
    claimed = struct.pack(">I", 22067)
    with pytest.raises(UnusableAudio, match="claims 22067 frames, the file holds 22066"):
        check(path, whole[:offset] + claimed + whole[offset + 4 :])


def test_ogg_pages_missing_repeated_or_chained(tmp_path):
    path = tmp_path / "file"
    whole = sound_bytes(path, ("OGG", "VORBIS", 1, 44100))
    starts = [at for at in range(len(whole)) if whole.startswith(b"OggS", at)] + [len(whole)]
    pages = [whole[start:end] for start, end in itertools.pairwise(starts)]
    with pytest.raises(UnusableAudio, match="missing before page"):
        check(path, b"".join(pages[:-2] + pages[-1:]))
    with pytest.raises(UnusableAudio, match="no last page"):
        check(path, b"".join(pages[:-1]))
    with pytest.raises(UnusableAudio, match="several Ogg streams"):
        check(path, whole + whole)


def mp3_frames(path, *, variable):
    """Return the frames of an MP3 (of variable bit rate: all in one); the first is the index."""
    mode = "VARIABLE" if variable else "CONSTANT"
    with soundfile.SoundFile(
        path, "w", 48000, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=0.5
    ) as sound:
        sound.write(noise(48000))
    content = path.read_bytes()
    if variable:
        return [content]
    return [content[at : at + 480] for at in range(0, len(content), 480)]  # 160 kbit/s at 48 kHz


def test_mp3_without_index_passes_only_if_its_frames_are_whole(tmp_path):
    path = tmp_path / "file"
    frames = mp3_frames(path, variable=False)
    bare = b"".join(frames[1:])
    assert check(path, bare) == (len(frames) - 1) * 1152
    for cut in (1, 2, 100, 476, 479):
        with pytest.raises(UnusableAudio, match="truncated"):
            check(path, bare[:-cut])


def test_mp3_with_an_index_knows_its_missing_frames(tmp_path):
    path = tmp_path / "file"
    frames = mp3_frames(path, variable=False)
    with pytest.raises(UnusableAudio, match=f"claims {len(frames) - 1} MPEG frames, the file holds {len(frames) - 2}"):
        check(path, b"".join(frames[:-1]))
    with pytest.raises(UnusableAudio, match="gap at byte"):
        check(path, b"".join(frames[:20]) + bytes(480 * (len(frames) - 20)))


def test_mp3_of_variable_rate_without_index_is_rejected(tmp_path):
    path = tmp_path / "file"
    (content,) = mp3_frames(path, variable=True)
    second = content.index(content[:2], 100)
    with pytest.raises(UnusableAudio, match="variable bit rate without index"):
        check(path, content[second:])


def test_mp3_with_tags_at_both_ends_is_whole(tmp_path):
    path = tmp_path / "file"
    whole = b"".join(mp3_frames(path, variable=False))
    front = b"ID3\x04\0\0" + bytes([0, 0, 1, 72]) + bytes(200)
    assert check(path, front + whole + b"TAG" + bytes(125)) == 48000


@pytest.mark.parametrize("container", ["AVR", "IRCAM", "MAT5", "MPC2K", "PAF", "PVF", "SDS", "XI"])
def test_formats_that_cannot_be_checked_are_rejected(tmp_path, container):
    path = tmp_path / "file"
    content = sound_bytes(path, (container, soundfile.default_subtype(container) or "PCM_16", 1, 44100))
    with pytest.raises(UnusableAudio, match=f"format {container} is whole cannot be told; convert it"):
        check(path, content)


@pytest.mark.parametrize("content", [b"", b"a note\n", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)])
def test_other_files_are_not_audio(tmp_path, content):
    with pytest.raises(NotAudio):
        check(tmp_path / "file", content)


def test_scrambled_headers_raise_nothing_else(tmp_path):
    """Whatever the bytes, the result is samples or :class:`UnusableAudio`."""
    rng = np.random.default_rng(1)
    path = tmp_path / "file"
    for kind in KINDS:
        whole = sound_bytes(path, kind)
        for _ in range(20):
            content = bytearray(whole)
            for position in rng.integers(0, rng.choice([48, 128, len(whole)]), 2):
                content[position] = rng.choice([0, 127, 128, 255, rng.integers(256)])
            path.write_bytes(content)
            try:
                source = inspect(path)
                if source.seconds < 100:
                    convert(source, tmp_path / "out.flac", 24000)
            except UnusableAudio:
                continue
            assert source.frames > 0
