"""NAME.shared, beside a store that is served: a number that grows with each write, mapped into the memory of those who
read the store on the same machine, so that seeing that nothing changed costs them microseconds and no question.

It knows nothing of what was written.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
from pathlib import Path

from recgraph.store.connection import PRIVATE

MARK = ".shared"  # after the store's name
_FORM = struct.Struct("<16sQ")  # which file it is, and how often something may have been written


class Mark:
    """The file NAME.shared, mapped: `count` grows with every write. The owner makes it, others read it."""

    def __init__(self, path: Path, write: bool = False) -> None:
        """FileNotFoundError, ValueError where there is none."""
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        file = os.open(path, flags, PRIVATE)
        try:
            if write and os.fstat(file).st_size != _FORM.size:
                os.truncate(file, 0)
                os.write(file, _FORM.pack(secrets.token_bytes(16), 0))
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._map = mmap.mmap(file, _FORM.size, access=access)
        finally:
            os.close(file)

    @property
    def name(self) -> str:
        """Which file it is: on another machine, or of another store, it is another one."""
        return str(_FORM.unpack(self._map)[0].hex())

    @property
    def count(self) -> int:
        return int(_FORM.unpack(self._map)[1])

    def step(self) -> None:
        """One more; readers see the old number or the new one."""
        _FORM.pack_into(self._map, 0, bytes.fromhex(self.name), self.count + 1)

    def close(self) -> None:
        self._map.close()
