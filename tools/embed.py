"""Text embeddings: `TextEncoder` turns texts into unit vectors, `embed` does so once for each distinct text and keeps
them in the store.

It knows transformers' encoders and the store's embedding table, not what the texts are (titles, queries, ids). The
encoder is run with transformers alone: importing sentence-transformers costs seconds and its vectors are the same
(cosine above 0.999, checked in the tests).
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from recgraph.errors import ModelMissing, StoreBusy, StoreReadOnly
from recgraph.store.db import Store
from recgraph.tools.llm.places import (
    DEFAULT_ENCODER,
    cpu_dtype,
    find_encoder,
    fingerprint,
    model_title,
    placement,
    quiet_transformers,
)
from recgraph.tools.llm.untrusted import one_line
from recgraph.tools.lstm import LSTMEncoder, is_lstm

MAX_TOKENS = 128  # a text is read up to here; product titles have 10-60 tokens, and MiniLM was trained with 128
BATCH_TOKENS = (
    1024  # tokens of one forward pass: 130 titles a CPU second, 90 with 8192 (they fall out of the CPU's cache)
)
# On a card a pass of few tokens is all launches, 50 ms on a slow host; two cores read a thousand in about as long.
CARD_FROM = 1024
CARD_BATCH_TOKENS = 65_536
SAVE_EVERY = 4096  # texts computed between two saves: what a kill may lose

_RARE = (
    25_000  # of BERT's 30,522 pieces, the frequent ones first: from here on names and words such as "jens", "causal"
)
LOOK_EVERY = 128  # texts between two looks at the clock: a second on a slow CPU

Progress = Callable[[int, int], None]  # done, total


class Encoder(Protocol):
    """What turns texts into unit vectors. `name` identifies the weights (a key of stored vectors), `dim` is the length
    of a vector."""

    name: str
    dim: int

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32[len(texts), dim], in the order given, each row of length 1."""


def open_encoder(path: str = "", dtype: torch.dtype | None = None) -> Encoder:
    """The encoder that `path` names: a folder with a trained title LSTM or a sentence encoder, a hub id, or "" for
    all-MiniLM-L6-v2.

    `dtype` is a sentence encoder's number format, None for what suits this machine. Raises ModelMissing.
    """
    folder = find_encoder(path)
    return LSTMEncoder(folder) if is_lstm(folder) else TextEncoder(path, dtype=dtype)


def encoder_of(store: Store, asked: str = "") -> Encoder:
    """The encoder to serve a store with: the one `asked` for, else the one its title vectors were made by (meta
    `embedder`), else the default.

    `embedder` is a folder as `publish` wrote it, relative to the store's folder, the current one or this checkout. A
    store may come from anywhere, so it can only name what lies in one of the three: nothing is fetched, and nothing is
    opened elsewhere, because a store says so. Raises ModelMissing: with another encoder every title would be embedded
    anew, and what was fitted would not be used.
    """
    kept = "" if asked else store.meta("embedder") or ""
    if asked or kept in ("", DEFAULT_ENCODER):
        return open_encoder(asked or kept)
    place = _folder_of(store, kept)
    reason = "which is not here"
    if place is not None:
        try:
            return open_encoder(str(place))
        except ModelMissing as error:
            reason = f"which cannot be used. {error}"
    raise ModelMissing(
        f"The titles of {store.path} were embedded by '{one_line(kept, 200)}', {reason}. Get it with `dvc pull` or "
        "`recgraph train title_embeddings`; or name it yourself, RECGRAPH_EMBEDDER=FOLDER, where you trust it (a store "
        "names none outside of its folder, this one or this checkout); or set "
        f"RECGRAPH_EMBEDDER={DEFAULT_ENCODER}, which embeds them anew."
    )


def _folder_of(store: Store, kept: str) -> Path | None:
    """The folder that a store means, where it is a model's and lies in a known place."""
    roots = [root.resolve() for root in (store.path.parent, Path(), Path(__file__).resolve().parents[1])]
    places = [(root / kept).resolve() for root in roots]
    known = (place for place in places if any(place.is_relative_to(root) for root in roots))
    return next((place for place in known if (place / "config.json").is_file()), None)


def text_vectors(
    texts: Sequence[str], encoder: Encoder, cache: Path | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32[len(texts), d], unit vectors; each distinct text is computed once. With a folder `cache` the result is
    kept and found there."""
    digest = hashlib.sha256("\0".join((encoder.name, *texts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    file = cache / f"{encoder.name.replace('/', '_')}-{digest}.npy" if cache else None
    if file and file.is_file():
        return np.asarray(np.load(file, allow_pickle=False), np.float32)
    distinct = list(dict.fromkeys(texts))
    row = {text: number for number, text in enumerate(distinct)}
    found = (
        encoder.encode(distinct)[[row[text] for text in texts]] if distinct else np.zeros((0, encoder.dim), np.float32)
    )
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npy")
        np.save(part, found, allow_pickle=False)
        part.replace(file)  # a kill while writing leaves no half file under the name
    return found


class TextEncoder:
    """A sentence encoder: mean (or CLS) pooling over the last layer, L2-normalised.

    `path` is a folder, a hub id, or "" for all-MiniLM-L6-v2. `name` identifies the weights (a key of stored vectors),
    `dim` is the length of a vector. Where there is a card and no `device` is given, the work decides: a request's few
    short texts stay on the processor, a catalogue goes to the card. Safe to use from several threads. Raises
    ModelMissing.
    """

    def __init__(
        self,
        path: str = "",
        *,
        max_tokens: int = MAX_TOKENS,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        folder = find_encoder(path)
        best_device, best_dtype = placement()
        self._card = None if device or best_device == "cpu" else (best_device, dtype or best_dtype)
        home = device or "cpu"
        suits = cpu_dtype() if home == "cpu" else best_dtype
        with quiet_transformers():
            try:
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                self._model: Any = AutoModel.from_pretrained(
                    folder, dtype=dtype or suits, attn_implementation="sdpa", trust_remote_code=False
                )
            except (OSError, ValueError) as error:
                raise ModelMissing(f"The sentence encoder in {folder} cannot be loaded: {error}") from error
        self._model.to(home).eval()
        self._on_card: Any = None  # its copy there, made when there is work for it
        self._cls = _pools_first_token(folder)
        self._lock = threading.Lock()  # a fast tokenizer must not be set to cut texts by two threads at once
        self.max_tokens = min(max_tokens, int(getattr(self._model.config, "max_position_embeddings", max_tokens)))
        self.dim = int(self._model.config.hidden_size)
        self.words = _whole_words(self._tokenizer)
        title = DEFAULT_ENCODER.split("/")[1] if path in ("", DEFAULT_ENCODER) else model_title(folder)
        self.name = f"{title}-{fingerprint(folder)}"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32[len(texts), dim], in the order given, each row of length 1. Texts are cut at `max_tokens` tokens."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return vectors
        with self._lock:
            tokens: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens)[
                "input_ids"
            ]
        order = sorted(
            range(len(texts)), key=lambda i: len(tokens[i])
        )  # alike lengths together: less padding, 2-3 times faster
        model, limit, done = *self._place(sum(map(len, tokens))), 0
        for batch in _batches(order, tokens, limit):
            vectors[batch] = self._forward(model, [tokens[i] for i in batch])
            done += len(batch)
            if progress:
                progress(done, len(texts))
        return vectors

    def _place(self, tokens: int) -> tuple[Any, int]:
        """The model that reads so many tokens in all, and how many it reads at once."""
        if self._card is None or tokens < CARD_FROM:
            return self._model, BATCH_TOKENS
        with self._lock:
            if self._on_card is None:
                self._on_card = copy.deepcopy(self._model).to(*self._card)
        return self._on_card, CARD_BATCH_TOKENS

    def _forward(self, model: Any, rows: list[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), int(self._tokenizer.pad_token_id or 0))
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            if self._cls:
                pooled = states[:, 0]
            else:
                weights = mask.unsqueeze(-1).float()
                pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            return np.asarray(torch.nn.functional.normalize(pooled, dim=1).cpu().numpy(), dtype=np.float32)


def text_key(text: str) -> str:
    """The key of a text's vector in the store: equal texts, equal keys. 32 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def embed(
    store: Store, encoder: Encoder, kind: str, texts: Sequence[str], progress: Progress | None = None, save: bool = True
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors of the texts, float32[len(texts), dim], from the store where it has them; each distinct missing text is
    computed once.

    New vectors are saved every SAVE_EVERY texts, so a kill loses little. A store that cannot be written now (read-only
    disk, another writer) is no error: the vectors are returned all the same and computed again next time.
    """
    return embed_until(None, store, encoder, kind, texts, progress, save)[0]


def embed_until(
    until: float | None,
    store: Store,
    encoder: Encoder,
    kind: str,
    texts: Sequence[str],
    progress: Progress | None = None,
    save: bool = True,
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """As `embed`, but the work ends near the moment `until` (`time.monotonic()`); what is done is saved. The texts that
    were not reached have zeros, and the second value counts the distinct ones."""
    keys = [text_key(text) for text in texts]
    by_key = dict(zip(keys, texts, strict=True))
    known: dict[str, Any] = dict(store.vectors(kind, encoder.name, list(by_key)))
    missing = sorted((key for key in by_key if key not in known), key=lambda key: len(by_key[key]))
    step, unsaved, left = SAVE_EVERY if until is None else LOOK_EVERY, 0, 0
    for start in range(0, len(missing), step):
        if until is not None and time.monotonic() >= until:
            left, missing = len(missing) - start, missing[:start]
            break

        def report(done: int, _: int, start: int = start, of: int = len(missing)) -> None:
            if progress:
                progress(start + done, of)

        chunk = missing[start : start + step]
        known.update(zip(chunk, encoder.encode([by_key[key] for key in chunk], report), strict=True))
        if save and start + step - unsaved >= SAVE_EVERY:
            save, unsaved = _save(store, kind, encoder.name, missing[unsaved : start + step], known), start + step
    if save and unsaved < len(missing):
        _save(store, kind, encoder.name, missing[unsaved:], known)
    nothing = np.zeros(encoder.dim, dtype=np.float32)
    vectors = np.stack([known.get(key, nothing) for key in keys]) if keys else np.zeros((0, encoder.dim))
    return vectors.astype(np.float32), left


def _save(store: Store, kind: str, model: str, keys: Sequence[str], known: Mapping[str, Any]) -> bool:
    try:
        with store.writing():
            store.save_vectors(kind, model, list(keys), np.stack([known[key] for key in keys]))
    except (StoreBusy, StoreReadOnly):
        return False
    return True


def _batches(order: list[int], tokens: list[list[int]], limit: int) -> list[list[int]]:
    """Cuts an order by ascending length into batches of at most `limit` tokens, padding counted."""
    batches: list[list[int]] = []
    batch: list[int] = []
    for i in order:
        if batch and len(tokens[i]) * (len(batch) + 1) > limit:
            batches.append(batch)
            batch = []
        batch.append(i)
    batches.append(batch)
    return batches


def _whole_words(tokenizer: Any) -> frozenset[str]:
    """The words that a WordPiece tokenizer keeps whole, but the rarest: real words of its language, and no slips
    of the finger (of 40 tried none). Empty for other tokenizers, whose pieces are not told from words."""
    tokens: dict[str, int] = tokenizer.get_vocab()
    if not any(token.startswith("##") for token in tokens):
        return frozenset()
    return frozenset(token for token, rank in tokens.items() if rank < _RARE and token.isalpha())


def _pools_first_token(folder: Path) -> bool:
    """Whether sentence-transformers' own pooling file asks for the first token instead of the mean (BGE does)."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return False
    return bool(json.loads(file.read_text(encoding="utf-8")).get("pooling_mode_cls_token", False))
