"""The text of a label file, and letters of words."""

import codecs
import unicodedata
from pathlib import Path

from melnet.data.labels.label import LabelError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, or in UTF-16 with a byte order mark.

    No other encoding is guessed: Shift-JIS and its like can be mistaken for each other.

    Raises
    ------
    LabelError
        It cannot be read, or is in another encoding; the message names the file and the line.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     characters = Path(folder, "a.lab").write_text("0 1 あ", encoding="utf-16")
    ...     read_lines(Path(folder, "a.lab"))
    ['0 1 あ']
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror}") from error
    encoding = "utf-16" if content.startswith(UTF16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabelError(
            f"{path}, line {line}: neither UTF-8 nor UTF-16 with a byte order mark; if it is Shift-JIS, convert it: "
            "iconv -f SHIFT_JIS -t UTF-8"
        ) from error
    lines: list[str] = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, characters in enumerate(lines, 1):
        if "\0" in characters:
            raise LabelError(f"{path}, line {number}: holds NUL: no text, or UTF-16 without a byte order mark")
    return lines


def letters(text: str) -> list[str]:
    """The letters, marks and digits of words, in lower case and composed (NFC); all else is left out.

    >>> letters("Ça va!")
    ['ç', 'a', 'v', 'a']
    """
    composed = unicodedata.normalize("NFC", text.casefold())
    return [character for character in composed if unicodedata.category(character)[0] in "LMN"]


def characters(text: str) -> list[str]:
    """The characters of a text in lower case and composed (NFC), each run of white space as one space.

    >>> characters("Ah,  ça\\n")
    ['a', 'h', ',', ' ', 'ç', 'a']
    """
    return list(" ".join(unicodedata.normalize("NFC", text.casefold()).split()))
