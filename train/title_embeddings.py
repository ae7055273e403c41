"""Stage `title_embeddings`: trains the chosen title encoder, embeds every title and measures.
`recgraph train title_embeddings`.

    data/title_embeddings/titles.parquet      key, text, vector of each distinct title
    data/title_embeddings/encoder.json        which encoder made them and what it was fitted on
    data/title_embeddings/evidence.parquet    what it saw (train/evidence.py)
    data/title_embeddings/lstm | finetuned/   the encoder itself, where one was trained
    metrics/title_embeddings.json             title retrieval on the validation cases

`encoder: ready` is the sentence encoder as it comes, `lstm` the model of F 4.4, `finetuned` the sentence encoder
trained on the same pairs. Everything runs in float32 on the CPU with a fixed number of threads, so that machines with
and without bf16 give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from recgraph.errors import SettingsError
from recgraph.store.db import Store
from recgraph.store.parquet import write_table
from recgraph.store.snapshot import open_folder
from recgraph.tools.embed import Encoder, Progress, TextEncoder, open_encoder, text_key
from recgraph.tools.llm.places import find_encoder
from recgraph.tools.lstm import read_tokenizer, save_lstm
from recgraph.train import evidence
from recgraph.train.networks.title_pairs import NEXT_PURCHASE, Pairs, Titles, pairs_of, retrieval
from recgraph.train.networks.titles import FinetuneSettings, LSTMSettings, finetune, save_finetuned, threads, train_lstm
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed, split_folder
from recgraph.train.prepare import Case, read_cases, read_facts

OUT = Path("data") / "title_embeddings"
CHECKPOINTS = Path(".checkpoints") / "title_embeddings"  # not in an out: DVC empties those before a stage runs
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TitleParams:
    """The block `title_embeddings` of params.yaml. `ready` is the folder or hub id of a sentence encoder, "" the
    default one; `positives` the least that makes a pair; `cases` are measured, drawn with the seed (0: all). The
    encoders' seeds are this one, unless they set their own."""

    encoder: Literal["ready", "lstm", "finetuned"]
    dtype: Literal["float32", "bfloat16"]
    positives: Literal["click", "cart", "purchase"]
    cases: int
    seed: int
    threads: int
    ready: str = ""
    lstm: LSTMSettings = field(default_factory=LSTMSettings)
    finetuned: FinetuneSettings = field(default_factory=FinetuneSettings)

    @classmethod
    def of(cls, params: Params) -> TitleParams:
        """From params.yaml."""
        own = params.get("title_embeddings")
        if isinstance(own, Mapping) and "seed" in own:
            seeded = {name: {"seed": own["seed"], **(own.get(name) or {})} for name in ("lstm", "finetuned")}
            params = {**params, "title_embeddings": {**own, **seeded}}
        return block(params, "title_embeddings", cls)

    @property
    def trained(self) -> LSTMSettings | FinetuneSettings | None:
        """The settings of the encoder that is to be trained; None for the ready one."""
        return {"ready": None, "lstm": self.lstm, "finetuned": self.finetuned}[self.encoder]


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, the fields of `TitleParams`. Reads data/prepare, writes data/title_embeddings and metrics."""
    own, split = TitleParams.of(params), split_folder(params, folder)
    kind, settings = own.encoder, own.trained
    target = folder / OUT
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with threads(own.threads):
        with open_folder(split / "train") as store:
            titles = Titles.of(store.catalogue())
            pairs = pairs_of(store, titles, own.positives)
            seen = (
                [evidence.of_store("The title encoder with its pairs", "title_embeddings", store)] if settings else []
            )
        if pairs.source == NEXT_PURCHASE:
            note(
                "This shop has no queries: pairs are a product's title and the title of the same user's next purchase."
            )
        facts: dict[str, Any] = {
            "encoder": kind,
            "pairs": pairs.source,
            "positive_pairs": len(pairs.positive),
            "fitted_before": None,
        }
        losses: list[float] = []
        if settings:
            started = time.perf_counter()
            facts["fitted_before"] = read_facts(split)["fitted_before"]
            facts |= {"split": split.name, "settings": asdict(settings)}
            losses = train_encoder(settings, pairs, titles, target / kind, folder / CHECKPOINTS / kind, facts, note)
            note(f"Trained on {len(pairs.positive):,} pairs in {time.perf_counter() - started:.0f} s")
        encoder = open_encoder(str(target / kind)) if settings else TextEncoder(own.ready, dtype=DTYPES[own.dtype])
        vectors = encoder.encode(titles.texts, _progress_notes(note, "Titles embedded"))
        with open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as store:
            cases = sample(read_cases(split, "valid"), own.cases, own.seed)
            found = measure(encoder, vectors, store, cases, titles, pairs.source)
    facts |= {"name": encoder.name, "dim": encoder.dim, "folder": kind if settings else "", "ready": own.ready}
    write_table(
        target / "titles.parquet",
        {"key": [text_key(text) for text in titles.texts], "text": titles.texts, "vector": vectors},
    )
    _write_json(target / "encoder.json", facts)
    evidence.keep(target, *seen)
    _write_json(
        folder / "metrics" / "title_embeddings.json",
        {**facts, "titles": len(titles.texts), "loss": losses, "valid": found},
    )
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    note(
        f"{kind} ({encoder.name}), {pairs.source} pairs, validation: "
        + ", ".join(f"{name} {number}" for name, number in found.items())
    )


def chosen_encoder(folder: Path, dtype: torch.dtype | None = None) -> Encoder:
    """The encoder that the stage chose, for the stages after it; `folder` is params.yaml's. StoreError before the stage
    has run."""
    return open_encoder(encoder_place(folder), dtype)


def encoder_place(folder: Path) -> str:
    """What `Settings.embedder` must be for the stage's encoder: its folder, or the ready encoder's name ("" the default
    one)."""
    facts = json.loads(needed(folder / OUT / "encoder.json", "title_embeddings").read_text(encoding="utf-8"))
    return str(folder / OUT / facts["folder"]) if facts["folder"] else str(facts["ready"])


def train_encoder(
    settings: LSTMSettings | FinetuneSettings,
    pairs: Pairs,
    titles: Titles,
    target: Path,
    checkpoint: Path,
    facts: Mapping[str, Any],
    note: Note,
) -> list[float]:
    """Trains an encoder and writes its folder; returns the mean loss of each epoch. SettingsError where there is
    nothing to learn from."""
    if not len(pairs.positive):
        raise SettingsError(
            f"There is nothing to train '{target.name}' on: no purchase follows a query or another one. Set "
            "title_embeddings.encoder: ready"
        )
    if isinstance(settings, LSTMSettings):
        model, losses = train_lstm(pairs, titles, settings, checkpoint, note)
        save_lstm(
            model,
            read_tokenizer(find_encoder() / "tokenizer.json", settings.max_tokens),
            target,
            settings.max_tokens,
            facts,
        )
    else:
        tuned, losses = finetune(pairs, titles, settings, checkpoint, note)
        save_finetuned(tuned, target)
        _write_json(target / "recgraph.json", facts)
    return losses


def sample(cases: Sequence[Case], most: int, seed: int) -> list[Case]:
    """At most so many cases, drawn at random with the seed, in their order; all where `most` is 0."""
    if not most or len(cases) <= most:
        return list(cases)
    return [cases[place] for place in np.sort(np.random.default_rng(seed).choice(len(cases), most, replace=False))]


def measure(
    encoder: Encoder,
    vectors: np.ndarray[Any, np.dtype[np.float32]],
    store: Store,
    cases: Sequence[Case],
    titles: Titles,
    source: str,
) -> dict[str, Any]:
    """Title retrieval of the cases (`title_pairs.retrieval`): from the query or, without queries, from the title bought
    before.

    `store` knows everything; a case sees what its user did before its as_of. Cases without a query, or without anything
    before, do not count.
    """
    asked, wanted, hidden = [], [], []
    bought = store.counts()["purchases"] > 0
    for case in cases:
        if case.item_id not in titles.of_item:
            continue
        text, itself = case.query.strip().lower(), -1
        if source == NEXT_PURCHASE:
            before = [
                event
                for event in store.history(case.user_id, case.as_of)
                if event.action == "purchase" or (event.item_id and not bought)
            ]
            last = titles.of_item.get(before[-1].item_id) if before else None
            text, itself = (titles.texts[last], int(titles.group[last])) if last is not None else ("", -1)
        if text:
            asked.append(text)
            wanted.append(int(titles.group[titles.of_item[case.item_id]]))
            hidden.append(itself)
    return retrieval(encoder.encode(asked), wanted, vectors, titles.group, hidden)


def _progress_notes(note: Note, what: str, every: float = 30.0) -> Progress:
    started = last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every:
            last = now
            note(f"{what}: {done:,} of {of:,}, {(now - started) / done * (of - done):.0f} s left")

    return tell


def _write_json(file: Path, facts: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(dict(facts), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
