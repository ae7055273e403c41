"""An encoder that remembers the vectors of the texts it was asked for last, so that a search is encoded once a request
and not once a tool. It knows no model and no store.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from recgraph.tools.embed import Encoder, Progress

KEPT = 1024  # vectors: 1.5 MB at 384 dimensions
SHORT = 8  # texts of one call; more are a catalogue, which its callers keep themselves


class RememberingEncoder:
    """`encoder` with the vectors of the last KEPT texts. Thread-safe where the encoder is."""

    def __init__(self, encoder: Encoder) -> None:
        self.name, self.dim, self._encoder = encoder.name, encoder.dim, encoder
        self.words: frozenset[str] = getattr(encoder, "words", frozenset())
        self._kept: OrderedDict[str, np.ndarray[Any, np.dtype[np.float32]]] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32[len(texts), dim], in the order given, each row of length 1; the caller's own."""
        if not 0 < len(texts) <= SHORT:
            return self._encoder.encode(texts, progress)
        with self._lock:
            found = {text: self._kept[text] for text in texts if text in self._kept}
        new = [text for text in dict.fromkeys(texts) if text not in found]
        if new:
            found.update(zip(new, self._encoder.encode(new, progress), strict=True))
        with self._lock:
            for text in texts:
                self._kept[text] = found[text]
                self._kept.move_to_end(text)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return np.stack([found[text] for text in texts])

    def forget(self) -> None:
        """Forgets all texts: one of them may be a search of a shopper who is forgotten."""
        with self._lock:
            self._kept.clear()
