"""Trains the two title encoders of recgraph: the LSTM of F 4.4 with a triplet loss, and the sentence encoder fine-tuned
on the same pairs.

Both see the same positive pairs and hard negatives (`train/networks/title_pairs.py`), mined anew for each epoch with
the encoder as it is then. After each epoch the state goes to a checkpoint folder (safetensors and JSON); a run that is
started again with the same data and settings goes on there, and ends with the same weights. Which encoder is wanted and
what becomes of it is in `train/title_embeddings.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional

from recgraph.tools.llm.places import find_encoder, quiet_transformers
from recgraph.tools.lstm import TitleLSTM, encode_rows, padded, read_tokenizer, token_rows
from recgraph.train.networks.title_pairs import Numbers, Pairs, Titles, mine
from recgraph.train.pipeline import Note, progress

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class LSTMSettings:
    """Of the LSTM. `margin` of the triplet loss is in cosine; an epoch takes at most `pairs` pairs, drawn anew (0:
    all).

    A hard negative is drawn among the `nearest` non-matches. F 4.4 takes the very nearest, 1; where many products would
    have served a query, as in the simulated shop, those are mostly matches that nobody happened to buy. Recall@10 on
    its validation queries (ready encoder: .646), 4 epochs on purchases: nearest 20 .408, 100 .743; with random word
    vectors .535 and .713. Nearest 1, with random words and dim 256, stayed at a loss of about `margin` and .158. With
    clicks as positives too, nearest 200, 2 epochs: .752.
    """

    words: str = "encoder"  # where word vectors start: encoder (the sentence encoder's, projected) | random
    word_dim: int = 128
    dim: int = 128
    pooling: str = "mean"  # of the LSTM's states: mean | last
    dropout: float = 0.2  # of the word vectors
    margin: float = 0.2
    nearest: int = 200
    epochs: int = 3
    pairs: int = 20_000
    batch: int = 128
    lr: float = 2e-3
    max_tokens: int = 64
    seed: int = 7


@dataclass(frozen=True)
class FinetuneSettings:
    """Of the fine-tuning. At most `pairs` pairs, drawn anew, are in an epoch (0: all); the learning rate falls from
    epoch to epoch."""

    base: str = ""  # what is fine-tuned, as `find_encoder` reads it
    nearest: int = 10
    epochs: int = 1
    pairs: int = 4_000
    batch: int = 32
    lr: float = 2e-5
    max_tokens: int = 64
    seed: int = 7


class Checkpoint:
    """The state after the last whole epoch, in a folder, for one combination of data and settings."""

    def __init__(self, folder: Path, pairs: Pairs, titles: Titles, settings: LSTMSettings | FinetuneSettings) -> None:
        self.folder = folder
        digest = hashlib.sha256(
            json.dumps([type(settings).__name__, asdict(settings), pairs.queries, titles.texts]).encode()
        )
        digest.update(pairs.positive.tobytes() + titles.group.tobytes())
        self.identity = digest.hexdigest()

    def read(self) -> dict[str, Any]:
        """{"epoch": epochs done, "losses": theirs}; no epoch where nothing fitting was kept."""
        with contextlib.suppress(OSError, ValueError):
            kept: dict[str, Any] = json.loads((self.folder / "checkpoint.json").read_text(encoding="utf-8"))
            if kept["identity"] == self.identity:
                return kept
        return {"epoch": 0, "losses": []}

    def write(self, epoch: int, losses: list[float], save: Callable[[Path], None]) -> None:
        """`save` writes the weights into a new folder, which then takes the place of the old one: a kill leaves one or
        the other."""
        fresh, old = self.folder.with_name(self.folder.name + ".new"), self.folder.with_name(self.folder.name + ".old")
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        fresh.mkdir(parents=True)
        save(fresh)
        (fresh / "checkpoint.json").write_text(
            json.dumps({"identity": self.identity, "epoch": epoch, "losses": losses}), encoding="utf-8"
        )
        if self.folder.exists():
            self.folder.rename(old)
        fresh.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """torch with so many threads inside the block: sums are added in another order with another number, and the last
    bits differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def triplet_loss(
    query: torch.Tensor, title: torch.Tensor, negatives: torch.Tensor, there: torch.Tensor, margin: float
) -> torch.Tensor:
    """Mean over n pairs and both sides of max(0, margin - cos(query, title) + cos(pair's side, its negative)) (F 4.4).

    float[n, d] unit vectors, `negatives` float[n, 2, d] (title for the query, query for the title), `there` bool[n, 2].
    """
    positive = (query * title).sum(1, keepdim=True)
    negative = torch.stack([(query * negatives[:, 0]).sum(1), (title * negatives[:, 1]).sum(1)], dim=1)
    losses = functional.relu(margin - positive + negative) * there
    return losses.sum() / there.sum().clamp(min=1)


def train_lstm(
    pairs: Pairs, titles: Titles, settings: LSTMSettings, checkpoint: Path, note: Note = lambda _: None
) -> tuple[TitleLSTM, list[float]]:
    """A trained LSTM in eval mode, and the mean loss of each epoch. The words are those of the default sentence
    encoder's tokenizer."""
    tokenizer = read_tokenizer(find_encoder() / "tokenizer.json", settings.max_tokens)
    query_rows, title_rows = token_rows(tokenizer, pairs.queries), token_rows(tokenizer, titles.texts)
    torch.manual_seed(settings.seed)
    model = TitleLSTM(tokenizer.get_vocab_size(), settings.word_dim, settings.dim, settings.pooling, settings.dropout)
    if settings.words == "encoder":
        model.words.weight.data.copy_(word_vectors(settings.word_dim))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    keeper = Checkpoint(checkpoint, pairs, titles, settings)
    kept = keeper.read()
    losses: list[float] = kept["losses"]
    if kept["epoch"]:
        _load_state(model, optimizer, keeper.folder / "state.safetensors")
        note(f"Going on after epoch {kept['epoch']} of {settings.epochs}")
    for epoch in range(kept["epoch"], settings.epochs):
        rng = np.random.default_rng([settings.seed, epoch])
        torch.manual_seed(settings.seed + 1_000 * (epoch + 1))
        model.eval()
        positive = rng.permutation(pairs.positive)[: settings.pairs or None]
        negatives = mine(
            pairs,
            titles,
            positive,
            encode_rows(model, query_rows),
            encode_rows(model, title_rows),
            settings.nearest,
            rng,
        )
        model.train()
        total = 0.0
        for start in progress(range(0, len(positive), settings.batch), f"LSTM, epoch {epoch + 1} of {settings.epochs}"):
            batch, against = positive[start : start + settings.batch], negatives[start : start + settings.batch]
            rows = [query_rows[q] for q in batch[:, 0]] + [title_rows[t] for t in batch[:, 1]]
            rows += [title_rows[t] for t in against[:, 0]] + [query_rows[q] for q in against[:, 1]]
            query, title, other_title, other_query = model(*padded(rows)).chunk(4)
            loss = triplet_loss(
                query,
                title,
                torch.stack([other_title, other_query], dim=1),
                torch.from_numpy(against >= 0),
                settings.margin,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(round(total / max(len(positive), 1), 6))
        note(f"LSTM, epoch {epoch + 1} of {settings.epochs}: loss {losses[-1]:.4f}")
        keeper.write(epoch + 1, losses, lambda folder: _save_state(model, optimizer, folder / "state.safetensors"))
    return model.eval(), losses


def word_vectors(dim: int) -> torch.Tensor:
    """float32[words, dim]: the default sentence encoder's word vectors on their first principal components, unit
    variance overall."""
    rows = load_file(find_encoder() / "model.safetensors")["embeddings.word_embeddings.weight"].float()
    rows = rows - rows.mean(0)
    _, directions = torch.linalg.eigh(rows.T @ rows)  # ascending
    projected = rows @ directions[:, -dim:]
    return torch.as_tensor(projected / projected.std())


def _save_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> None:
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value.contiguous() for name, value in state.items()}
    save_file(tensors, file)


def _load_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> None:
    tensors = load_file(file)
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, part = name.split(".")
            state.setdefault(int(number), {})[part] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def finetune(
    pairs: Pairs, titles: Titles, settings: FinetuneSettings, checkpoint: Path, note: Note = lambda _: None
) -> tuple[Any, list[float]]:
    """The fine-tuned SentenceTransformer and the mean loss of each epoch.

    MultipleNegativesRankingLoss in both directions: query → title against the other titles of the batch and the hard
    one, and title → query the same way. Each epoch is a run of sentence-transformers' trainer of its own with fresh
    optimizer state, because the negatives change; so the weights are the whole state.
    """
    from sentence_transformers import SentenceTransformer

    keeper = Checkpoint(checkpoint, pairs, titles, settings)
    kept = keeper.read()
    losses: list[float] = kept["losses"]
    with _quiet_training():
        model = SentenceTransformer(
            str(keeper.folder if kept["epoch"] else find_encoder(settings.base)), device="cpu", local_files_only=True
        )
        model.max_seq_length = settings.max_tokens
        model.float()
        if kept["epoch"]:
            note(f"Going on after epoch {kept['epoch']} of {settings.epochs}")
        for epoch in range(kept["epoch"], settings.epochs):
            rng = np.random.default_rng([settings.seed, epoch])
            positive = rng.permutation(pairs.positive)[: settings.pairs or None]
            negatives = mine(
                pairs,
                titles,
                positive,
                _vectors(model, pairs.queries),
                _vectors(model, titles.texts),
                settings.nearest,
                rng,
            )
            losses.append(
                round(
                    _finetune_epoch(
                        model, pairs, titles, positive, negatives, settings, epoch, checkpoint.with_name("trainer")
                    ),
                    6,
                )
            )
            note(f"Fine-tuning, epoch {epoch + 1} of {settings.epochs}: loss {losses[-1]:.4f}")
            keeper.write(epoch + 1, losses, lambda folder: save_finetuned(model, folder))
    return model, losses


def save_finetuned(model: Any, folder: Path) -> None:
    """Writes a folder that `TextEncoder` and sentence-transformers read; without a model card, whose text names the
    machine's packages."""
    with _quiet_training():
        model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


def _vectors(model: Any, texts: list[str]) -> Matrix:
    return np.asarray(
        model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32
    )


def _finetune_epoch(
    model: Any,
    pairs: Pairs,
    titles: Titles,
    positive: Numbers,
    negatives: Numbers,
    settings: FinetuneSettings,
    epoch: int,
    scratch: Path,
) -> float:
    """One epoch over the pairs that have both negatives; returns the mean loss."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.training_args import BatchSamplers, MultiDatasetBatchSamplers
    from transformers import PrinterCallback, TrainerCallback

    whole = (negatives >= 0).all(axis=1)
    positive, negatives = positive[whole], negatives[whole]
    query, title = (
        [texts[place] for place in positive[:, side]] for side, texts in enumerate((pairs.queries, titles.texts))
    )
    wrong_title, wrong_query = (
        [texts[place] for place in negatives[:, side]] for side, texts in enumerate((titles.texts, pairs.queries))
    )
    steps = 2 * math.ceil(len(positive) / settings.batch)
    bar = progress(range(steps), f"Fine-tuning, epoch {epoch + 1} of {settings.epochs}")

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            next(bar, None)

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, _: Any) -> None:
            """No model card: picking examples for it takes time and draws a bar of its own."""

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.lr * (1 - epoch / settings.epochs),
        lr_scheduler_type="constant_with_warmup" if epoch == 0 else "constant",
        warmup_steps=max(steps // 10, 1) if epoch == 0 else 0,
        seed=settings.seed + epoch,
        data_seed=settings.seed + epoch,
        batch_sampler=BatchSamplers.NO_DUPLICATES,  # what is in a batch twice would be its own negative
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    sides = {
        "query": Dataset.from_dict({"anchor": query, "positive": title, "negative": wrong_title}),
        "title": Dataset.from_dict({"anchor": title, "positive": query, "negative": wrong_query}),
    }
    loss_of = MultipleNegativesRankingLoss(model)
    trainer = Trainer(model=model, args=arguments, train_dataset=sides, loss=loss_of, callbacks=[Steps()])
    trainer.remove_callback(PrinterCallback)
    loss = float(trainer.train().training_loss)
    bar.close()  # type: ignore[attr-defined]
    shutil.rmtree(scratch, ignore_errors=True)
    return loss


@contextlib.contextmanager
def _quiet_training() -> Iterator[None]:
    """No bars, log lines or warnings of transformers, datasets and sentence-transformers inside the block."""
    import datasets

    loud = logging.getLogger("sentence_transformers")
    level, bars = loud.level, datasets.are_progress_bars_disabled()
    loud.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        loud.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
