"""LoRA adapters in use: which of a set a recommender asks for, in process or on a server, and the in-process ones, switched a call.

It knows peft, and no prompt; what lies on disk is `tools.adapter_sets`' subject. peft is imported only when there is an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from recgraph.errors import LLMError, ModelMissing
from recgraph.tools.llm.adapter_sets import WEIGHTS, Base, adapter_fingerprint, all_sets, check_fit, find_set, labelled, served_names
from recgraph.tools.llm.places import INSTALL_LOCAL, find_llm, open_llm

if TYPE_CHECKING:
    from recgraph.store.db import Store
    from recgraph.tools.llm.protocol import LLM
    from recgraph.tools.llm.server import ServerLLM

NONE = "none"  # what a setting says to go without


class Adapters:
    """The adapters of one model, none active at first. `folders` maps names to PEFT folders, `base` is the model. Raises ModelMissing.

    Switching costs 25 ms for 210 adapted layers (peft walks all modules), about 1 % of a recommendation, which switches three times.
    """

    def __init__(self, model: Any, folders: Mapping[str, str], base: Base) -> None:
        self.names: tuple[str, ...] = tuple(folders)
        self._peft: Any = None
        self._active: str | None = None
        for name, folder in folders.items():
            check_fit(name, Path(folder).expanduser(), base)
            self._load(model, name, Path(folder).expanduser())
        if self._peft is not None:
            self._peft.base_model.disable_adapter_layers()

    def use(self, name: str | None) -> None:
        """Switches to an adapter, or to the bare base model for None."""
        if name == self._active:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            if self._active is None:
                self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name)
        self._active = name

    def _load(self, model: Any, name: str, folder: Path) -> None:
        try:
            from peft import PeftModel, get_peft_model_state_dict
            from safetensors import safe_open
        except ModuleNotFoundError as error:
            raise ModelMissing(f"The adapter '{name}' needs the Python package '{error.name}': {INSTALL_LOCAL}") from None
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(model, str(folder), adapter_name=name, autocast_adapter_dtype=False)
                self._peft.eval()
            else:
                self._peft.load_adapter(str(folder), adapter_name=name, autocast_adapter_dtype=False)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line or "not found" in line), str(error))
            raise ModelMissing(f"The adapter '{name}' in {folder} does not fit this base model: {reason}") from error
        # peft leaves out what finds no place, silently: an adapter of a deeper base would load in part.
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            apart = set(file.keys()) ^ set(get_peft_model_state_dict(self._peft, adapter_name=name))
        if apart:
            raise ModelMissing(f"The adapter '{name}' in {folder} does not fit this base model: {len(apart)} weights differ, such as {min(apart)}.")


@dataclass(frozen=True, slots=True)
class InUse:
    """The adapters one recommender asks for. `names` maps a task to the LLM's name of its adapter, `weights` to the fingerprint of what
    answers ("" where a server does not tell); `label` names the set and its weights, "" for none; `notes` say what was done without."""

    label: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_adapted(
    asked: str,
    default: str | None,
    store: str | Path,
    *,
    model: str = "",
    url: str = "",
    api_key: str = "",
    cache: Path | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[LLM, InUse]:
    """The LLM as `open_llm` opens it, with the adapters `asked` for: a set's name or folder, "none", or "" for the store's `default`.

    A default that is not there or does not fit is no error: the base model answers and a note says so. One that was asked for and cannot
    be used raises ModelMissing, or LLMError where a server does not serve it.
    """
    wanted = asked or default or NONE
    if url:
        server = cast("ServerLLM", open_llm(model, url, api_key))
        return server, _served(server, wanted, must=bool(asked)) if wanted != NONE else InUse()
    base = find_llm(model, cache, note)
    found, used = None, InUse()
    if wanted != NONE:
        try:
            found = find_set(wanted, store)
            told = Base.of(base)
            notes = {check_fit(found.name, folder, told): None for folder in found.tasks.values()}
            names = {task: task for task in found.tasks}
            used = InUse(found.label, names, found.weights, tuple(f"adapter: {text}" for text in notes if text))
        except ModelMissing as error:
            if asked:
                raise
            found, used = None, InUse(notes=(f"adapter: untrained answers. {error}",))
    folders = {task: str(folder) for task, folder in found.tasks.items()} if found else None
    return open_llm(str(base), adapters=folders, cache=cache), used


def keep_default(store: Store, wanted: str, model: str = "", url: str = "", api_key: str = "", *, cache: Path | None = None) -> str:
    """Makes a set the one that runs over this store take, "none" for no set. Returns what is kept: its name, else its folder.

    Raises ModelMissing where the set is not there or is not for the base model, LLMError where the server does not serve it. Writes meta.
    """
    kept = wanted
    if wanted != NONE and url:
        server = cast("ServerLLM", open_llm(model, url, api_key))
        server.connect()
        _served(server, wanted, must=True)
    elif wanted != NONE:
        found, base = find_set(wanted, store.path), Base.of(find_llm(model, cache))
        for folder in found.tasks.values():
            check_fit(found.name, folder, base)
        named = next((one for one in all_sets(store.path) if one.name == found.name), None)
        kept = found.name if named and named.folder.samefile(found.folder) else str(found.folder.absolute())
    with store.writing():
        store.set_meta("adapter", kept)
    return kept


def _served(server: ServerLLM, wanted: str, *, must: bool) -> InUse:
    """What a server serves of a set. Where a served folder can be read here, its weights are known; else only its name."""
    if not server.connected:
        return InUse(notes=(f"adapter: the LLM server could not be asked for the set '{wanted}' when this was opened; the base model answers.",))
    names = served_names(wanted, server.adapters)
    if not names:
        reason = (
            f"The LLM server serves no adapter of the set '{wanted}'; it serves {', '.join((server.name, *server.adapters))}. Start it with "
            f"--enable-lora --lora-modules {Path(wanted).name}-next=FOLDER … (README, 'Adapters'), or go without: --adapter none."
        )
        if must:
            raise LLMError(reason)
        return InUse(notes=(f"adapter: untrained answers. {reason}",))
    weights = {task: adapter_fingerprint(root) if (root := server.roots.get(name)) else "" for task, name in names.items()}
    return InUse(labelled(Path(wanted).name, weights), names, weights)
