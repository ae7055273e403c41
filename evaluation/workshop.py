"""What the systems of one evaluation share: where things lie, the text encoder, and what was fitted once for several of
them.

A door makes one of its settings and hands it in (recgraph/measure.py), so nothing here reads settings. What is shared
is known by what it was made of; how a system uses it is unknown here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recgraph.tools.embed import Encoder

T = TypeVar("T")
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Workshop:
    """`store` is the file that the task is of, for systems that read more of it; `cache` a folder where what takes long
    is kept (None: nothing is); `embedder` names the text encoder ("": the default), unless one is `given` open; `tuned`
    are settings by a system's name."""

    store: Path | None = None
    cache: Path | None = None
    embedder: str = ""
    tuned: Mapping[str, Settings] = field(default_factory=dict)
    given: Encoder | None = None
    _made: dict[str, tuple[Hashable, Any]] = field(default_factory=dict, repr=False, compare=False)

    def encoder(self) -> Encoder:
        """Opened when it is first asked for. ModelMissing where it is not there."""
        from recgraph.tools.embed import open_encoder  # here, as it brings torch, and most systems read no text

        return self.given or self.once("encoder", self.embedder, lambda: open_encoder(self.embedder))

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[texts, d], unit vectors by the encoder; those of one catalogue serve every system and the next
        evaluation."""
        from recgraph.tools.embed import text_vectors

        return text_vectors(texts, self.encoder(), self.cache / "text-vectors" if self.cache else None)

    def once(self, what: str, of: Hashable, make: Callable[[], T]) -> T:
        """What was made of the same before, else made now. Of each kind of thing the last one is held: another seed or
        task needs another."""
        if what not in self._made or self._made[what][0] != of:
            self._made.pop(what, None)  # two of them need not fit into memory
            self._made[what] = (of, make())
        found: T = self._made[what][1]
        return found
