"""The LoRA adapters of a model in process, switched from call to call. It knows peft, and no prompt; what lies on disk
is adapter_sets.py's subject, which adapters a recommender asks for open.py's. peft, an optional package, is imported
only when there is an adapter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recgraph.errors import ModelMissing
from recgraph.tools.llm.adapter_sets import WEIGHTS, Base, check_fit
from recgraph.tools.llm.merged import MergedWeights
from recgraph.tools.llm.places import INSTALL_LOCAL


class Adapters:
    """The adapters of one model, none active at first. `folders` maps names to PEFT folders, `base` is the model.
    Raises ModelMissing.

    They are added into the weights (merged.py), and switching exchanges those; but for a model so large that peft adds
    them in every pass.
    """

    def __init__(self, model: Any, folders: Mapping[str, str], base: Base) -> None:
        self.names: tuple[str, ...] = tuple(folders)
        self._peft: Any = None
        self._active: str | None = None
        for name, folder in folders.items():
            check_fit(name, Path(os.path.expanduser(folder)), base)
            self._load(model, name, Path(os.path.expanduser(folder)))
        if self._peft is not None:
            self._peft.base_model.disable_adapter_layers()
        self._merged = MergedWeights.of(model)

    def use(self, name: str | None) -> None:
        """Switches to an adapter, or to the bare base model for None."""
        if self._merged is not None:
            self._merged.use(name)
        elif name is None:
            self._peft.base_model.disable_adapter_layers()
        elif name != self._active:
            if self._active is None:
                self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name)
        self._active = name

    def _load(self, model: Any, name: str, folder: Path) -> None:
        try:
            from peft import PeftModel, get_peft_model_state_dict
            from safetensors import safe_open
        except ModuleNotFoundError as error:
            raise ModelMissing(
                f"The adapter '{name}' needs the Python package '{error.name}': {INSTALL_LOCAL}"
            ) from None
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(
                    model, str(folder), adapter_name=name, autocast_adapter_dtype=False
                )
                self._peft.eval()
            else:
                self._peft.load_adapter(str(folder), adapter_name=name, autocast_adapter_dtype=False)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = next(
                (line.strip() for line in str(error).splitlines() if "size mismatch" in line or "not found" in line),
                str(error),
            )
            raise ModelMissing(f"The adapter '{name}' in {folder} does not fit this base model: {reason}") from error
        # peft leaves out what finds no place, silently: an adapter of a deeper base would load in part.
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            apart = set(file.keys()) ^ set(get_peft_model_state_dict(self._peft, adapter_name=name))
        if apart:
            raise ModelMissing(
                f"The adapter '{name}' in {folder} does not fit this base model: {len(apart)} weights differ, such as "
                f"{min(apart)}."
            )
