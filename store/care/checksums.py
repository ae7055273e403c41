"""Checksums of the files of a folder, in its checksums.json: for each file its size and a CRC of every block. Bits that a
disk or a cable flipped are seen before they are answered from.

Files that are memory-mapped are as large as the catalogue, so who opens them looks at some blocks, others each time;
`recgraph doctor --deep` looks at all. What the files hold is unknown here.
"""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

NAME = "checksums.json"
BLOCK = 2**20  # bytes
_LOOKED_AT = 8  # blocks of a file that are looked at on opening; smaller files are read whole


def write(folder: Path) -> None:
    """For the files that are in the folder now."""
    sums = {name: {"size": (folder / name).stat().st_size, "blocks": _blocks(folder / name)} for name in _names(folder)}
    (folder / NAME).write_text(json.dumps(sums) + "\n", encoding="utf-8")


def _names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _blocks(file: Path) -> list[int]:
    with file.open("rb") as stream:
        return [zlib.crc32(block) for block in iter(lambda: stream.read(BLOCK), b"")]


def problem(folder: Path, deep: bool = False) -> str:
    """What is not as it was written, "" where all that was looked at is: of each file the size, and the first, the last
    and some other blocks, or all where `deep`."""
    try:
        sums = json.loads((folder / NAME).read_text(encoding="utf-8"))
        for name, told in sums.items():
            file, crcs = folder / name, told["blocks"]
            if file.stat().st_size != told["size"]:
                return f"{name} has {file.stat().st_size:,} bytes instead of {told['size']:,}"
            with file.open("rb") as stream:
                for number in range(len(crcs)) if deep else _some(len(crcs)):
                    stream.seek(number * BLOCK)
                    if zlib.crc32(stream.read(BLOCK)) != crcs[number]:
                        return f"the checksum of block {number} of {name} is another"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error) or type(error).__name__
    strange = {*_names(folder)} - {NAME, *sums}
    return f"{min(strange)} is none of its files" if strange else ""


def _some(blocks: int) -> list[int]:
    if blocks <= _LOOKED_AT:
        return [*range(blocks)]
    return [0, blocks - 1, *random.sample(range(1, blocks - 1), _LOOKED_AT - 2)]
