"""Stage `textformer`: trains the text transformer on the events before the cut and the searches among them. Command:
`recgraph train textformer`.

    data/textformer/textformer.safetensors   the network; not there where nothing could be learnt (nameless products,
                                             nobody with two)
    data/textformer/config.json              settings, the encoder of the texts, fitted_before
    data/textformer/evidence.parquet         what it saw (train/evidence.py)
    metrics/textformer.json                  loss and validation NDCG@10 of each epoch, and which is kept

It is the baseline `textformer-query` (train/networks/text.py), trained as there, and one more source of candidates for
the ranking. What serves is tools/sources/textformer.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from recgraph.errors import SettingsError
from recgraph.store import snapshot
from recgraph.tools.sources.textformer import TextFormer
from recgraph.train import evidence
from recgraph.train.memory import read_queries
from recgraph.train.networks.text import TextFormerSystem as Trainer
from recgraph.train.networks.text import TextSettings
from recgraph.train.params import Params, block
from recgraph.train.pipeline import Note, needed, split_folder
from recgraph.train.prepare import PrepareParams, read_facts
from recgraph.train.task import events_of, read_task
from recgraph.train.vectors import title_vectors

OUT = Path("data") / "textformer"


def run(params: Params, folder: Path, note: Note) -> None:
    """Params: split, prepare, the fields of `TextSettings`. Reads data/prepare, title_embeddings and memory, writes
    data/textformer and metrics."""
    settings, prepared, split = (
        block(params, "textformer", TextSettings),
        block(params, "prepare", PrepareParams),
        split_folder(params, folder),
    )
    if not settings.cosine:
        raise SettingsError("textformer.cosine is false in params.yaml; what serves compares by cosine only.")
    facts = read_facts(split)
    with snapshot.open_folder(needed(folder / "data" / "prepare" / "all", "prepare")) as everything:
        task = read_task(everything, "the shop", facts["split"], **asdict(prepared))
    with snapshot.open_folder(split / "train") as store:
        learnt, encoder = store.sequences(), read_queries(folder, store)
        # Nothing here needs to know the test cases, and what is learnt is what the train part has.
        task = replace(
            task, train=events_of(learnt), user_ids=tuple(learnt.user_ids), test=task.test.of(np.zeros(0, np.int64))
        )
        facts_of = {"encoder": encoder.name, "fitted_before": facts["fitted_before"], "split": facts["split"]}
        vectors = title_vectors(folder, list(task.item_ids), list(task.texts))
        shutil.rmtree(folder / OUT, ignore_errors=True)
        system = Trainer(settings, store, queries=True, encoder=encoder, text=vectors)
        if len(task.train) and vectors.any():
            system.fit(task, note)
        epochs, best = system.epochs, system.best
        if epochs:
            system.served(**facts_of).save(folder / OUT)
            shown = (
                f", validation NDCG@10 {epochs[best][1]:.4f}, own items left out"
                if len(task.valid)
                else "; there is no validation case"
            )
            note(f"text transformer: epoch {best + 1} of {len(epochs)} is kept{shown}")
        else:
            TextFormer({}, facts_of).save(folder / OUT)
            note(
                "the text transformer has nothing to learn from: the products have no names, or nobody had two of "
                "them before the cut"
            )
    seen = evidence.of_sequences("The text transformer", "textformer", learnt, list(task.item_ids))
    evidence.keep(folder / OUT, seen, *(replace(one, stage="textformer") for one in system.seen))
    # Without a validation case an epoch is judged by its number.
    told = [
        {"loss": round(loss, 4), "valid_ndcg@10": round(found, 4) if len(task.valid) else None}
        for loss, found in epochs
    ]
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics" / "textformer.json").write_text(
        json.dumps({"kept": best + 1, "epochs": told}, indent=2) + "\n", encoding="utf-8"
    )
