"""What a recommendation is made of: models, the store with its trained parts, adapters.

It opens a store for reading and loads no model; whether the machine suffices, and what a server has, is unknown here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from recgraph.doctor.check import INSTALL, Check, load
from recgraph.errors import ModelMissing, RecgraphError, StoreBusy, StoreError
from recgraph.settings import Settings

DEMO = "recgraph demo --store {store}   (a simulated shop), or recgraph ingest PATH... --store {store}"
MAKE_TRAINED = "dvc repro (docs/training.md); for the simulated shop: recgraph demo --store {store}"


def models(settings: Settings) -> Iterator[Check]:
    from recgraph.tools.llm import places

    model = places.given_llm(settings.llm)
    named = "give {0} a folder with config.json and *.safetensors, or: hf download {1}"
    mend = named.format("RECGRAPH_LLM", model) if model else places.INSTALL_LLM
    if settings.llm_url or settings.llm == "none":
        yield Check(
            "base model",
            None,
            "not looked for here: the LLM server has it" if settings.llm_url else "none wanted (RECGRAPH_LLM=none)",
        )
    else:
        found = _place("base model", lambda: places.locate_llm(model, settings.cache_folder), mend)
        if not settings.asks_llm:
            unasked = f"{found.found}; asked with --llm default" if found.ok else f"not asked. {found.found}"
            found = replace(found, ok=found.ok or None, found=unasked)
        yield found
    mend = named.format("RECGRAPH_EMBEDDER", settings.embedder) if settings.embedder else places.INSTALL_ENCODER
    yield _place("sentence encoder", lambda: places.locate_encoder(settings.embedder), mend)


def _place(name: str, locate: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, True, locate())
    except (ModelMissing, ImportError, OSError) as error:
        return Check(name, False, str(error), mend)


# ── Store ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def store(settings: Settings) -> Iterator[Check]:
    path = Path(settings.store)
    room = load("recgraph.store.db")
    if isinstance(room, str):  # duckdb is missing or broken; the packages' lines say so too
        yield Check("store", False, room, INSTALL)
        return
    if not path.exists():
        yield Check("store", False, f"{path.absolute()} does not exist", DEMO.format(store=path))
        return
    try:
        with room.Store.open(path) as store:
            counts, simulated, version = store.counts(), store.meta("simulated"), store.meta("schema_version")
            parts = list(trained(store))
    except StoreBusy as error:
        yield Check("store", False, str(error), "wait for the other process to end, or read from a copy of the file")
        return
    except StoreError as error:
        said = "doctor --deep" in str(error)  # which mends a damaged one
        yield Check("store", False, str(error), "" if said else DEMO.format(store=path))
        return
    told = ", ".join(
        f"{counts[name]:,} {name}" for name in ("users", "items", "events", "exposures", "rejects") if name in counts
    )
    found = f"{path.absolute()}, schema {version}, {told}{'; simulated data' if simulated else ''}"
    yield Check("store", bool(counts.get("items")), found, "" if counts.get("items") else DEMO.format(store=path))
    yield from parts
    yield _writable(path)


def trained(store: Any) -> Iterator[Check]:
    """Whether trained parts rank in this store, and whether they are of what it holds now."""
    room = load("recgraph.tools.trained")
    if isinstance(room, str):  # a package is missing, which the packages' lines say
        return
    facts = room.published_facts(store)
    told = room.in_words(facts)
    if not told:
        yield Check(
            "trained parts", None, "none: counts and hand-set weights rank", MAKE_TRAINED.format(store=store.path)
        )
    elif facts["revision"] != store.revision():
        found = f"{told}; what was ingested since is counted, not learnt"
        yield Check("trained parts", True, found)
    else:
        yield Check("trained parts", True, told)


def _writable(path: Path) -> Check:
    """Reading is enough to recommend; then summaries, embeddings and the run log are not kept."""
    blocked = [str(part) for part in (path, path.absolute().parent) if not os.access(part, os.W_OK)]
    if blocked:
        found = f"{blocked[0]} is read-only: recommendations work, what they learn is not kept"
        return Check("store, writing", None, found, f"chmod u+w {blocked[0]}")
    return Check("store, writing", True, "the store and its folder can be written")


def adapters(settings: Settings) -> Iterator[Check]:
    """The set a run would take: asked for by a setting, it has to be there; the store's default may be missing."""
    wanted, asked = settings.adapter, bool(settings.adapter)
    if not asked and Path(settings.store).is_file():
        try:
            with load("recgraph.store.db").Store.open(settings.store) as store:
                wanted = store.meta("adapter") or ""
        except (RecgraphError, AttributeError):
            return  # the store's own line says what is wrong
    if wanted in ("", "none") or settings.llm == "none" or settings.llm_url:
        found = "a server's: see llm server" if settings.llm_url else "none chosen; the base model answers untrained"
        yield Check(
            "adapters", None, found, "" if settings.llm_url else "recgraph adapters list; recgraph adapters use SET"
        )
        return
    from recgraph.graph.prompts import VERSIONS
    from recgraph.tools.llm.adapter_sets import base_here, find_set, problem

    choose = "recgraph adapters list; then " + (
        "set RECGRAPH_ADAPTER" if asked else f"recgraph adapters use SET --store {settings.store}"
    )
    try:
        one = find_set(wanted, settings.store)
    except ModelMissing as error:
        yield Check("adapters", False if asked else None, str(error), choose)
        return
    if wrong := problem(one, base_here(settings.llm, settings.cache_folder)):
        yield Check("adapters", False if asked else None, wrong, choose)
        return
    old = [name for name, card in one.cards.items() if card.prompt_version not in ("", VERSIONS.get(name, ""))]
    found = f"{one.label} ({', '.join(one.tasks)}) in {one.folder}"
    if old:
        yield Check("adapters", None, f"{found}; {', '.join(old)} learnt other prompts than today's", "dvc repro")
    else:
        yield Check("adapters", True, found)
