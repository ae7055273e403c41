"""The title encoder of F 4.4 as it is served: words, one LSTM, a unit vector; `LSTMEncoder` loads one from its folder.

It has the face of `tools.embed.TextEncoder`. How it is trained is in `train/networks/titles.py`. A folder holds
config.json (sizes and what it was trained on), model.safetensors and tokenizer.json, and nothing that runs code when it
is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from recgraph.errors import ModelMissing
from recgraph.tools.llm.places import fingerprint, model_title

MODEL_TYPE = "recgraph-lstm"
_BATCH = 256  # texts of one forward pass


class TitleLSTM(nn.Module):
    """Token ids to unit vectors: word vectors, one LSTM layer, then the mean of its states over the text (or the last
    one).

    One network reads queries and titles (F 4.4). `words` is the size of the vocabulary, `dim` the length of states and
    vectors.
    """

    def __init__(
        self, words: int, word_dim: int = 128, dim: int = 256, pooling: str = "mean", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"words": words, "word_dim": word_dim, "dim": dim, "pooling": pooling}
        self.words = nn.Embedding(words, word_dim)
        self.lstm = nn.LSTM(word_dim, dim, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """int[n, width] padded at the right and int[n] lengths, each at least 1 → float[n, dim], rows of length 1."""
        # it reads from the left: padding at the right changes no earlier state
        states, _ = self.lstm(self.dropout(self.words(ids)))
        if self.pooling == "last":
            pooled = states[torch.arange(len(ids)), lengths - 1]
        else:
            inside = (torch.arange(ids.shape[1])[None] < lengths[:, None]).unsqueeze(-1)
            pooled = (states * inside).sum(1) / lengths[:, None]
        return nn.functional.normalize(pooled, dim=1)


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """int[n, longest] token ids with zeros at the right, and int[n] lengths; an empty row counts as one zero."""
    lengths = torch.tensor([max(len(row), 1) for row in rows])
    ids = torch.zeros((len(rows), int(lengths.max())), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return ids, lengths


def read_tokenizer(file: Path, max_tokens: int) -> Tokenizer:
    """A tokenizer that cuts texts at `max_tokens` and pads nothing. Its settings never change again, so threads may
    share it."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


def token_rows(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, without the control tokens of the sentence encoder whose tokenizer this is."""
    return [row.ids for row in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def save_lstm(model: TitleLSTM, tokenizer: Tokenizer, folder: Path, max_tokens: int, facts: Mapping[str, Any]) -> None:
    """Writes the folder that `LSTMEncoder` reads. `facts` (what it was trained on) are kept in config.json under
    "trained"."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": MODEL_TYPE, "max_tokens": max_tokens, **model.settings, "trained": dict(facts)}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_lstm(folder: Path) -> bool:
    """Whether the folder holds an encoder of this module."""
    file = folder / "config.json"
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE


class LSTMEncoder:
    """A trained title LSTM with the face of `TextEncoder`: `name` identifies the weights, `dim` is the length of a
    vector.

    Runs in float32 on the CPU: a small LSTM gains nothing elsewhere. Safe to use from several threads. Raises
    ModelMissing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self._model = TitleLSTM(config["words"], config["word_dim"], config["dim"], config["pooling"]).eval()
            self._model.load_state_dict(load_file(folder / "model.safetensors"))
            self._tokenizer = read_tokenizer(folder / "tokenizer.json", config["max_tokens"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelMissing(f"The title encoder in {folder} cannot be loaded: {error}") from error
        self.dim = int(config["dim"])
        self.name = f"{model_title(folder)}-{fingerprint(folder)}"

    def encode(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32[len(texts), dim], in the order given, each row of length 1. `progress` hears (done, of)."""
        return encode_rows(self._model, token_rows(self._tokenizer, texts), progress)


def encode_rows(
    model: TitleLSTM, rows: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32[len(rows), dim] of token ids; the model must be in eval mode."""
    vectors = np.zeros((len(rows), model.settings["dim"]), dtype=np.float32)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # alike lengths together: less padding
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            vectors[batch] = model(*padded([rows[i] for i in batch])).numpy()
            if progress:
                progress(start + len(batch), len(order))
    return vectors
