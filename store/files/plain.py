"""A file's bytes as plain UTF-8 text: members of archives, compression, encodings and line ends, all in streams and
never whole in memory.

It knows bytes, not what rows or columns are; `store/files/shapes.py` does rows.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import charset_normalizer
import zstandard

from recgraph.errors import IngestError

CHUNK = 2**20
# What unpacks to more than this is taken for an attack only where it also grows more than MAX_GROWTH times: logs shrink
# to a thirtieth.
MAX_UNPACKED, MAX_GROWTH = 2**30, 300
_SAMPLE = 65_536  # bytes of text outside ASCII from which an encoding is guessed
# Guessed only among what shops' software writes; of the Latin ones no statistics tell short texts apart, so those are
# decided below.
_OTHERS = ("cp1251", "cp1253", "shift_jis", "gb18030", "big5", "euc_kr")
_POLISH = frozenset(
    b"\xa3\xa5\xaf\xb3\xb9\xbf\x9a\x9c\x9e\x9f\x8c\x8f"
)  # letters of Windows-1250 that are signs in Windows-1252
# One byte is ı, ş, ğ, İ, Ş or Ğ in Turkish and ý, þ, ð, Ý, Þ or Ð in Icelandic, which alone of the two has á, é, í, ó, ú and æ.
_TURKISH, _ICELANDIC = b"\xfd\xfe\xf0\xdd\xde\xd0", b"\xe1\xe9\xed\xf3\xfa\xe6"
_BROKEN = (
    OSError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zstandard.ZstdError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class SourceFile:
    """A file of an ingest and the part it plays in its format, e.g. "items". `member` is a file inside a zip,
    `sheet` one of a workbook."""

    kind: str
    path: Path
    member: str = ""
    sheet: str = ""

    @property
    def filename(self) -> str:
        """The name that tells what is inside, without the ending of a compression."""
        name = Path(self.member or self.path.name).name
        return name if Path(name).suffix.lower() not in (".gz", ".zst", ".bz2", ".xz") else Path(name).stem

    @property
    def label(self) -> str:
        """The source without its folder, for lists."""
        return str(self).removeprefix(str(self.path.parent)).lstrip("/")

    def __str__(self) -> str:
        return str(self.path) + (f"/{self.member}" if self.member else "") + (f" [{self.sheet}]" if self.sheet else "")


def members(path: Path) -> list[str]:
    """The files inside a zip archive, [""] for any other file (a workbook is a zip, and one file)."""
    if not _starts(path, b"PK"):
        return [""]
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except _BROKEN as error:
        raise IngestError(f"{path} cannot be read: {error}") from None
    if "[Content_Types].xml" in names or "mimetype" in names:
        return [""]
    return sorted(name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith("."))


def magic(source: SourceFile) -> bytes:
    """The first bytes, compression taken off."""
    with open_bytes(source) as stream:
        try:
            return bytes(stream.read1(512))  # type: ignore[attr-defined]
        except EOFError:
            raise IngestError(f"{source} is cut off before its first row: fetch it again.") from None
        except _BROKEN as error:
            raise IngestError(f"{source} cannot be read: {error}") from None


@contextmanager
def open_bytes(source: SourceFile) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked by what they are rather than by the file's name. IngestError where the file cannot
    be opened."""
    with ExitStack() as opened:
        try:
            raw: IO[bytes] = opened.enter_context(source.path.open("rb"))
            if source.member:
                raw = opened.enter_context(opened.enter_context(zipfile.ZipFile(raw)).open(source.member))
            start = raw.read(6)
            raw.seek(0)
        except (*_BROKEN, EOFError) as error:
            raise IngestError(f"{source} cannot be read: {error}") from None
        if start.startswith(b"\x1f\x8b"):
            raw = opened.enter_context(cast("IO[bytes]", gzip.GzipFile(fileobj=raw)))
        elif start.startswith(b"BZh"):
            raw = opened.enter_context(bz2.BZ2File(raw))
        elif start == b"\xfd7zXZ\x00":
            raw = opened.enter_context(lzma.LZMAFile(raw))
        elif start.startswith(b"\x28\xb5\x2f\xfd"):
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            raw = opened.enter_context(cast("IO[bytes]", reader))
        yield raw


def chunks(source: SourceFile, ended: Callable[[str], None], limit: int = 0) -> Iterator[bytes]:
    """The unpacked bytes, a MiB at a time, `limit` of them where given. `ended` is told where the file breaks off
    before its end."""
    packed, total = max(source.path.stat().st_size, 1), 0
    with open_bytes(source) as stream:
        while not limit or total < limit:
            try:
                # read1 gives what is there before a cut; read would lose it to the error.
                part = stream.read1(min(CHUNK, limit - total) if limit else CHUNK)  # type: ignore[attr-defined]
            except EOFError:
                ended("the file ends early: its compressed stream is cut off")
                return
            except _BROKEN as error:
                raise IngestError(f"{source} cannot be read: {error}") from None
            if not part:
                return
            total += len(part)
            if total > MAX_UNPACKED and total > MAX_GROWTH * packed:
                raise IngestError(
                    f"{source} unpacks to more than {MAX_GROWTH} times its size: a damaged or hostile archive. Unpack it yourself."
                )
            yield part


@dataclass(frozen=True)
class PlainFile:
    """UTF-8 text on disk; `whole` is False where only its beginning was asked for. `notes` tell people what was done
    to get it."""

    path: Path
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    whole: bool = True


def plain_file(source: SourceFile, scratch: Path, encoding: str = "", limit: int = 0) -> PlainFile:
    """The file itself where it is plain already, else a copy in `scratch`. With `limit` about so many of its first
    bytes, whole lines. IngestError for an encoding that Python does not know."""
    if encoding and not is_encoding(encoding):
        raise IngestError(
            f"{source.path.name}: '{encoding:.40}' is no encoding; name one such as cp1252, or leave --encoding out."
        )
    broken: list[str] = []
    packed = bool(source.member) or is_packed(source.path)
    path = source.path
    whole = not limit or (not packed and path.stat().st_size <= limit)
    if packed or not whole:
        path, whole = _unpacked(source, scratch, broken.append, limit)
    found = encoding or encoding_of(path)
    notes = [f"encoding {found}"] if found not in ("utf-8", "utf-8-sig") else []
    bare = _only_carriage_returns(path, found)
    if notes or bare or encoding:
        path = _transcoded(path, found, scratch)
        notes += ["line ends of old Macs"] if bare else []
    return PlainFile(path, tuple(notes), tuple(broken), whole)


def _unpacked(source: SourceFile, scratch: Path, ended: Callable[[str], None], limit: int) -> tuple[Path, bool]:
    target, written = new_file(scratch), 0
    try:
        with target.open("wb") as copy:
            for part in chunks(source, ended, limit):
                written += copy.write(part)
    except OSError as error:
        raise IngestError(f"{source} cannot be unpacked into {scratch}: {error}. TMPDIR names another place.") from None
    if not limit or written < limit:
        return target, True
    with target.open("r+b") as copy:
        text = copy.read()
        end = (
            max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        )  # a half line says nothing true; nor does half of a file of one line
        copy.truncate(end or len(text))
    return target, False


def is_encoding(name: str) -> bool:
    """Whether Python reads text by this name."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
    except (LookupError, ValueError):
        return False
    return True


def encoding_of(path: Path) -> str:
    """Python's name of the encoding. Text that is UTF-8 but for a few lines is UTF-8: those lines are rejected by
    their numbers."""
    with path.open("rb") as stream:
        head = stream.read(4096)
        for mark, name in (
            (codecs.BOM_UTF8, "utf-8-sig"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if head.startswith(mark):
                return name
        zeros = (head[0::2].count(0), head[1::2].count(0))
        if max(zeros) > len(head) / 5:
            return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
        stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while part := stream.read(CHUNK):
                decoder.decode(part)
            return "utf-8"
        except UnicodeDecodeError:
            return _single_byte_encoding(path)


def _single_byte_encoding(path: Path) -> str:
    good, bad, sample = 0, 0, bytearray()
    with path.open("rb") as stream:
        for line in iter(lambda: stream.readline(CHUNK), b""):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                bad += 1
                if len(sample) < _SAMPLE:
                    sample += line
    return "utf-8" if good >= bad else guessed_encoding(bytes(sample))


def guessed_encoding(sample: bytes) -> str:
    """The encoding of text that is not UTF-8; Windows-1252 unless the letters speak clearly for another."""
    outside = sum(byte > 127 for byte in sample)
    letters = sum(byte > 127 or chr(byte).isalpha() for byte in sample)
    if (
        outside > letters / 3
    ):  # Latin text has few accents; in Cyrillic, Greek, Chinese, Japanese and Korean most letters are outside ASCII
        best = charset_normalizer.from_bytes(sample, cp_isolation=list(_OTHERS)).best()
        if best is not None:
            return best.encoding
    pairs = itertools.pairwise(sample)
    inside_words = sum(
        (a in _POLISH and chr(b).isalpha() and b < 128) or (b in _POLISH and chr(a).isalpha() and a < 128)
        for a, b in pairs
    )
    if inside_words > outside / 3 or b"\x9c\xe6" in sample:  # -\u015b\u0107, the end of many a Polish name, is \u0153\u00e6 in Windows-1252
        return "cp1250"
    turkish, icelandic = (sum(map(sample.count, letters)) for letters in (_TURKISH, _ICELANDIC))
    return "cp1254" if turkish > icelandic else "cp1252"


def _only_carriage_returns(path: Path, encoding: str) -> bool:
    with path.open("rb") as stream:
        head = stream.read(CHUNK).decode("latin-1" if encoding.startswith("utf-8") else encoding, errors="replace")
    return "\r" in head and "\n" not in head


def _transcoded(path: Path, encoding: str, scratch: Path) -> Path:
    """A copy in UTF-8 with \\n for every line end, so that a row keeps its number."""
    target = new_file(scratch)
    try:
        with (
            path.open("r", encoding=encoding, errors="replace", newline=None) as text,
            target.open("w", encoding="utf-8", newline="") as copy,
        ):
            while part := text.read(CHUNK):
                copy.write(part)
    except LookupError:
        raise IngestError(
            f"'{encoding}' is no known encoding; utf-8, cp1252, latin-1, utf-16, cp1251, shift_jis and gb18030 are some."
        ) from None
    except OSError as error:
        raise IngestError(f"{path} cannot be copied into {scratch}: {error}. TMPDIR names another place.") from None
    return target


def is_packed(path: Path) -> bool:
    """Whether the file itself is compressed: gzip, bzip2, xz or Zstandard."""
    return any(_starts(path, mark) for mark in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"))


def _starts(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(mark)) == mark
    except OSError as error:
        raise IngestError(f"{path} cannot be read: {error}") from None


def new_file(scratch: Path) -> Path:
    """An empty file of its own in the scratch folder."""
    with tempfile.NamedTemporaryFile(dir=scratch, delete=False) as file:
        return Path(file.name)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for unpacked and mended copies, gone after the ingest."""
    return tempfile.TemporaryDirectory(prefix="recgraph-ingest-")
