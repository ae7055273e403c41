"""Adapter sets on disk: `adapters/<set>/<adapter>/`, the card beside each adapter, finding a set, and whether it fits a
base model.

An adapter is a PEFT LoRA folder (adapter_config.json, adapter_model.safetensors) with a card, `recgraph.json`, that
says what it was trained on and with which result. Only files are looked at here: neither torch nor peft is needed to
list, compare or refuse a set.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from recgraph.errors import ModelMissing
from recgraph.tools.llm.places import fingerprint, locate_llm, model_title

TASKS = ("next", "fit", "summarize")  # name the next item; would they buy this, yes or no; write a summary
# What an adapter may be trained for, and the tasks it does then. Where two do the same, the later one is asked for it.
# One for two tasks reads what their prompts share once: the caches of prefixes are kept for each adapter apart.
ADAPTERS: Mapping[str, tuple[str, ...]] = {
    "recommend": ("next", "fit"),
    "next": ("next",),
    "fit": ("fit",),
    "summarize": ("summarize",),
}
LEAST_KEPT = 0.8  # share of an adapter's summaries that a run keeps, for it to be taken by itself
CARD = "recgraph.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_OBJECTS = ("settings", "data", "metrics", "created_with")
# with the weights, all that decides what an adapter adds
_SCALING = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
_VOLATILE = ("peft_version", "revision", "auto_mapping")  # differ between machines that trained the same


@dataclass(frozen=True, slots=True)
class AdapterCard:
    """What an adapter is for and what it was made from. `data` holds examples_sha256, fitted_before and source;
    `metrics` may be in two parts, before and after."""

    task: str
    base_name: str
    base_fingerprint: str = ""
    preset: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    prompt_version: str = ""
    created_with: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> AdapterCard | None:
        """The card in an adapter's folder, None where there is none. Unknown keys are passed over. Raises ModelMissing
        for a wrong kind."""
        file = Path(folder) / CARD
        if not file.is_file():
            return None
        facts = _json(file)
        base = facts.get("base", {})
        base = {"name": base} if isinstance(base, str) else base
        _check_kinds(
            file,
            facts,
            dict.fromkeys(_OBJECTS, dict)
            | {"base": (dict, str), "task": str, "preset": str, "prompt_version": (str, int)},
        )
        _check_kinds(file, base, {"name": str, "fingerprint": str}, "base.")
        if facts.get("task") not in ADAPTERS:
            raise ModelMissing(f"{file}: task is {facts.get('task')!r}; it must be one of {', '.join(ADAPTERS)}.")
        return cls(
            task=facts["task"],
            base_name=base.get("name", ""),
            base_fingerprint=base.get("fingerprint", ""),
            preset=facts.get("preset", ""),
            prompt_version=str(facts.get("prompt_version", "")),
            **{name: facts.get(name, {}) for name in _OBJECTS},
        )

    def write(self, folder: str | Path) -> Path:
        """Writes the card into an adapter's folder, keys sorted, so that the same card is the same bytes."""
        facts = {name: getattr(self, name) for name in ("task", "preset", "prompt_version", *_OBJECTS)}
        file = Path(folder) / CARD
        _write_json(file, {**facts, "base": {"name": self.base_name, "fingerprint": self.base_fingerprint}})
        return file

    def flat(self) -> dict[str, Any]:
        """Every fact of the card by a dotted name ("settings.r", "metrics.after.auc")."""
        base = {"name": self.base_name, "fingerprint": self.base_fingerprint}
        whole = {"base": base, "preset": self.preset, "prompt_version": self.prompt_version}
        return dict(_flat(whole | {name: getattr(self, name) for name in _OBJECTS}))


@dataclass(frozen=True)
class AdapterSet:
    """Adapters that belong together: `adapters` maps their names to their PEFT folders, `names` each task that one of
    them does to its name."""

    name: str
    folder: Path
    adapters: Mapping[str, Path]
    names: Mapping[str, str]

    @property
    def tasks(self) -> dict[str, Path]:
        """The folder of the adapter that does each task."""
        return {task: self.adapters[name] for task, name in self.names.items()}

    @cached_property
    def cards(self) -> dict[str, AdapterCard]:
        """The cards of the adapters that have one. Raises ModelMissing for a card that cannot be read."""
        return {name: card for name, folder in self.adapters.items() if (card := AdapterCard.read(folder))}

    @cached_property
    def weights(self) -> dict[str, str]:
        """The fingerprint of each task's adapter."""
        found = {name: adapter_fingerprint(folder) for name, folder in self.adapters.items()}
        return {task: found[name] for task, name in self.names.items()}

    @property
    def label(self) -> str:
        """Name and weights: "default-1a2b3c4d"."""
        return labelled(self.name, self.weights)

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(
            (folder / WEIGHTS).stat().st_size for folder in self.adapters.values() if (folder / WEIGHTS).is_file()
        )


@dataclass(frozen=True, slots=True)
class Base:
    """The base model that an adapter has to fit: its folder, its name and the fingerprint of its weights."""

    folder: Path
    name: str
    fingerprint: str

    @classmethod
    def of(cls, folder: str | Path) -> Base:
        return cls(Path(folder), model_title(Path(folder)), fingerprint(Path(folder)))


def labelled(name: str, weights: Mapping[str, str]) -> str:
    """A set's name with one fingerprint for all its weights; "-served" where a server keeps them to itself."""
    if not weights or not all(weights.values()):
        return f"{name}-served"
    return f"{name}-{hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()[:8]}"


def summarizes(folder: str | Path) -> bool:
    """Whether an adapter's own exam says that a run keeps nearly all of its summaries: one that copies lines of its
    prompt is counted instead. Without an exam it is not known, and not taken for granted."""
    card = AdapterCard.read(folder)
    exam = card.metrics.get("after", card.metrics) if card else {}
    kept = exam.get("accepted") if isinstance(exam, Mapping) else None
    return isinstance(kept, (int, float)) and kept >= LEAST_KEPT


def judging(folder: str | Path) -> tuple[float, str] | None:
    """What the log odds of an adapter's Yes against No are worth where the logarithm of a place is 1, as validation
    cases of a shop taught (`benchmarks/worth.py`), and that shop's name; None where it was not measured."""
    card = AdapterCard.read(folder)
    worth = card.metrics.get("worth") if card else None
    odds, shop = (worth.get("odds"), worth.get("shop")) if isinstance(worth, Mapping) else (None, None)
    if isinstance(odds, (int, float)) and isinstance(shop, str) and 0 <= odds < math.inf and shop:
        return float(odds), shop
    return None


def adapter_fingerprint(folder: str | Path) -> str:
    """Eight hex digits of an adapter's weights and scaling; "" where they cannot be read."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
        digest = hashlib.sha256(json.dumps([config.get(name) for name in _SCALING], sort_keys=True).encode())
        digest.update((Path(folder) / WEIGHTS).read_bytes())
    except (OSError, ValueError, AttributeError):
        return ""
    return digest.hexdigest()[:8]


# ── Finding a set ─────────────────────────────────────────────────────────────────────────────────────────────────────


def roots(store: str | Path | None = None) -> list[Path]:
    """The folders that hold sets: `adapters` beside the store, in the current folder, in the checkout this file is
    in."""
    beside = [Path(os.path.expanduser(store)).absolute().parent] if store else []
    places = [*beside, Path.cwd(), Path(__file__).resolve().parents[2]]
    return list(dict.fromkeys(place / "adapters" for place in places))


def find_set(wanted: str, store: str | Path | None = None) -> AdapterSet:
    """A set by its name ("default"), its folder, or one adapter's folder or name ("default/summarize"); names come
    first.

    A PEFT folder of which neither card nor name tells the task serves both next and fit. Raises ModelMissing with every
    place.
    """
    path = Path(os.path.expanduser(wanted))
    places = (
        [path]
        if path.is_absolute() or wanted.startswith(".")
        else [*(root / path for root in roots(store)), path.absolute()]
    )
    for place in places:
        if (found := _set_in(place)) is not None:
            return found
    searched = ", ".join(str(place) for place in places)
    raise ModelMissing(
        f"There is no adapter set '{wanted}'. Searched: {searched}. `recgraph adapters list` shows those that are "
        "there; "
        "--adapter none runs without, `dvc repro` trains one."
    )


def all_sets(store: str | Path | None = None) -> list[AdapterSet]:
    """Every set that can be found by name; of two with one name the one that a run would take."""
    found: dict[str, AdapterSet] = {}
    for root in roots(store):
        for place in sorted(root.iterdir()) if root.is_dir() else ():
            if (one := _set_in(place)) is not None:
                found.setdefault(one.name, one)
    return list(found.values())


def _set_in(place: Path) -> AdapterSet | None:
    if (place / CONFIG).is_file():
        card = AdapterCard.read(place)
        own = card.task if card else place.name if place.name in ADAPTERS else "recommend"
        name = f"{place.resolve().parent.name}/{place.name}" if place.name in ADAPTERS else place.name
        return AdapterSet(name, place, {own: place}, dict.fromkeys(ADAPTERS[own], own))
    found = {name: place / name for name in ADAPTERS if (place / name / CONFIG).is_file()}
    return AdapterSet(place.resolve().name, place, found, _who_does(found)) if found else None


def _who_does(adapters: Collection[str]) -> dict[str, str]:
    """Which of these adapters does which task, in the order of TASKS."""
    doing = {task: name for name, tasks in ADAPTERS.items() if name in adapters for task in tasks}
    return {task: doing[task] for task in TASKS if task in doing}


def served_as(name: str, adapter: str, folder: str | Path) -> str:
    """The name a server is given for an adapter: other weights have another one ("default-2c82af14-recommend"), so that
    no cache of theirs is taken for these."""
    return f"{PurePath(name).parts[0]}-{adapter_fingerprint(folder)}-{adapter}"


def is_served_as(name: str) -> bool:
    """Whether a name is one that `served_as` gives."""
    return bool(re.search(rf"-[0-9a-f]{{8}}-({'|'.join(ADAPTERS)})$", name))


def served_weights(served: str, root: str = "") -> str:
    """The fingerprint of a served adapter: that of the folder the server read it from, where it can be read here, else
    the one its name tells; "" where neither does."""
    marked = re.search(r"-([0-9a-f]{8})-[a-z]+$", served)
    return (adapter_fingerprint(root) if root else "") or (marked[1] if marked else "")


def served_names(wanted: str, served: Collection[str]) -> dict[str, str]:
    """Which served adapter does which task, for a set asked for by name or folder, out of the names a server answers
    to.

    vLLM knows adapters by flat names: `<set>-<fingerprint>-recommend` and so on (`served_as`), `<set>-recommend`, or
    plain `recommend`, `next`, `fit`, `summarize` where the server has one set only. An adapter served under `wanted`
    itself does what its name ends in, else both next and fit. {} for none.
    """
    parts = PurePath(wanted).parts or ("",)
    name = parts[-1]
    if len(parts) > 1 and name in ADAPTERS:  # one adapter's folder
        names = [*_of_set(parts[-2], name, served), name]
        return next((dict.fromkeys(ADAPTERS[name], here) for here in names if here in served), {})
    if own := {adapter: names[0] for adapter in ADAPTERS if (names := _of_set(name, adapter, served))}:
        return {task: own[adapter] for task, adapter in _who_does(own).items()}
    if name in served:
        return dict.fromkeys(ADAPTERS.get(name.rpartition("-")[2], ADAPTERS["recommend"]), name)
    return _who_does(served)


def _of_set(name: str, adapter: str, served: Collection[str]) -> list[str]:
    """The served names of a set's adapter, the plain one first."""
    marked = re.compile(re.escape(name) + r"-[0-9a-f]{8}-" + adapter)
    return [here for here in sorted(served, key=len) if here == f"{name}-{adapter}" or marked.fullmatch(here)]


# ── Does it fit? ──────────────────────────────────────────────────────────────────────────────────────────────────────


def base_here(model: str = "", cache: Path | None = None) -> Base | None:
    """The base model where it lies ready on this machine; None where it would first be converted or fetched."""
    try:
        folder = Path(locate_llm(model, cache))
    except ModelMissing:
        return None
    return Base.of(folder) if folder.is_dir() else None


def problem(one: AdapterSet, base: Base | None) -> str:
    """Why a set cannot be used on this base model (any, for None), in a sentence; "" where nothing speaks against
    it."""
    try:
        _ = one.cards
        if base is not None:
            for folder in one.adapters.values():
                check_fit(one.name, folder, base)
    except ModelMissing as error:
        return str(error)
    return ""


def check_fit(name: str, folder: str | Path, base: Base) -> str:
    """Raises ModelMissing where the adapter in `folder` is not whole or is not for this base model; the message names
    both models.

    The card decides where there is one: the same fingerprint fits, another name does not. Else adapter_config.json's
    base model does. Shapes have to fit in any case. Returns a note, "" mostly: the same name may stand on other weights
    (another precision, say).
    """
    folder = Path(folder)
    config = _lora_config(name, folder)
    card = AdapterCard.read(folder)
    trained_on = (card.base_name if card else "") or plain_name(str(config.get("base_model_name_or_path") or ""))
    same = bool(card and card.base_fingerprint and card.base_fingerprint == base.fingerprint)
    if not same and trained_on and trained_on.casefold() != base.name.casefold():
        raise _misfit(name, folder, trained_on, base, f"it was trained on {trained_on}, and this is {base.name}")
    if reason := _shapes_apart(folder, base):
        raise _misfit(name, folder, trained_on, base, reason)
    if same or card is None or not card.base_fingerprint:
        return ""
    both = f"{card.base_fingerprint}; here {base.fingerprint}"
    return f"the adapter '{name}' was trained on other weights of {base.name} ({both})"


def plain_name(model: str) -> str:
    """A model's name out of a path or hub id: its last part, or the repository's for a snapshot in the hub cache."""
    path = PurePath(model)
    return path.parent.parent.name.split("--")[-1] if path.parent.name == "snapshots" else path.name


def portable(folder: str | Path, base_name: str) -> None:
    """Makes a saved adapter fit to be versioned: the base model by its plain name, no path of this machine, the same
    bytes each time.

    Rewrites adapter_config.json (sorted, without what changes from machine to machine) and removes the README.md that
    peft writes, which holds the base model's path. Raises ModelMissing where there is no LoRA adapter.
    """
    folder = Path(folder)
    config = {key: value for key, value in _lora_config(folder.name, folder).items() if key not in _VOLATILE}
    if isinstance(config.get("target_modules"), list):
        # peft keeps a set: its order is another one in each process
        config["target_modules"] = sorted(config["target_modules"])
    _write_json(folder / CONFIG, {**config, "base_model_name_or_path": plain_name(base_name)})
    (folder / "README.md").unlink(missing_ok=True)


def _misfit(name: str, folder: Path, trained_on: str, base: Base, reason: str) -> ModelMissing:
    own = f"the model it was trained on (--llm {trained_on})" if trained_on else "the model it was trained on (--llm)"
    return ModelMissing(
        f"The adapter '{name}' in {folder} does not fit this base model: {reason}. Take {own}, a set for {base.name} "
        "(`recgraph adapters list`), or none (--adapter none)."
    )


def _lora_config(name: str, folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise ModelMissing(f"The adapter '{name}' should be a PEFT folder, but {file} is not there.")
    config = _json(file)
    if config.get("peft_type") != "LORA":
        raise ModelMissing(
            f"The adapter '{name}' in {folder} is of type {config.get('peft_type')}; only LORA adapters can be used."
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelMissing(f"The adapter '{name}' in {folder} has no {WEIGHTS}. Where DVC keeps it: dvc pull {folder}")
    return config


def _shapes_apart(folder: Path, base: Base) -> str:
    """Which matrix of the adapter has another shape than the base model's, "" where none has."""
    if "quantization_config" in _json(base.folder / "config.json"):
        return ""  # packed weights have shapes of their own
    known = {
        name: shape for file in sorted(base.folder.glob("*.safetensors")) for name, shape in tensor_shapes(file).items()
    }
    for name, (out, into) in _changed(folder).items():
        here = known.get(name)  # what is not found by this name may still be there (tied, fused): loading tells
        if here is not None and sorted(here) != sorted((out, into)):  # GPT-2's are stored the other way round
            return f"its {name} is {out} x {into}, that of {base.name} {' x '.join(map(str, here))}"
    return ""


def _changed(folder: Path) -> dict[str, tuple[int, int]]:
    """The matrices a LoRA adapter adds to, by the base model's names: B is [out, r], A is [r, in]."""
    halves: dict[str, dict[str, list[int]]] = {}
    for name, shape in tensor_shapes(folder / WEIGHTS).items():
        module, lora, half = name.removeprefix("base_model.model.").partition(".lora_")
        if lora and len(shape) == 2:
            halves.setdefault(f"{module}.weight", {})[half.partition(".")[0]] = shape
    return {name: (pair["B"][0], pair["A"][1]) for name, pair in sorted(halves.items()) if {"A", "B"} <= pair.keys()}


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The names and shapes in a safetensors file, out of its header alone. Raises ModelMissing for a damaged file."""
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > file.stat().st_size:
                raise ValueError("cut off")
            header = json.loads(handle.read(length))
        return {name: list(told["shape"]) for name, told in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelMissing(
            f"{file} is no whole safetensors file ({error}). Where DVC keeps it, fetch it: dvc pull {file.parent}"
        ) from None


def _json(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelMissing(f"{file} is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ModelMissing(f"{file} holds a {type(facts).__name__}; it must be a JSON object.")
    return facts


def _write_json(file: Path, told: Mapping[str, Any]) -> None:
    file.write_text(
        json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False, default=dict) + "\n", encoding="utf-8"
    )


def _check_kinds(file: Path, told: Mapping[str, Any], kinds: Mapping[str, Any], before: str = "") -> None:
    for key, kind in kinds.items():
        if key in told and not isinstance(told[key], kind):
            allowed = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise ModelMissing(f"{file}: {before}{key} is a {type(told[key]).__name__}; it must be a {allowed}.")


def _flat(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
