"""A base model with an adapter added into its weights, as a model of its own in a folder: what is served on a CPU,
where vLLM computes adapters token by token (docs/serving-llm.md).
How it is served is launch.py's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from recgraph.errors import ModelMissing
from recgraph.tools.llm.adapter_sets import CARD, AdapterSet, Base, check_fit, served_as
from recgraph.tools.llm.places import quiet_transformers

MERGES = "recommend"  # of a set: the adapter that is asked at every recommendation
# Of a model's files, the weights, and what says which of them holds what: a server that reads the index of a model in
# parts looks for the parts.
_WEIGHTS = (".safetensors", ".bin", ".index.json", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


def packed(model: Path) -> bool:
    """Whether a model's weights are packed (AWQ, GPTQ and the like): nothing can be added to those."""
    return "quantization_config" in json.loads((model / "config.json").read_text(encoding="utf-8"))


def merged(
    model: Path, one: AdapterSet, dtype: str, cache: Path, note: Callable[[str], object] = lambda text: None
) -> tuple[Path, str]:
    """The folder of the model with the set's `recommend` in its weights, in a number format ("float32", "bfloat16"),
    and the name that the adapter is served under. Made once; its name tells both weights. `note` hears of the work.

    Raises ModelMissing for an adapter that is not for this model, for a `packed` model, and where the cache cannot be
    written; KeyError for a set without `recommend`, ModuleNotFoundError without recgraph[local].
    """
    import peft  # noqa: F401  what is missing is told before anything is made
    import torch  # noqa: F401

    base, folder = Base.of(model), one.adapters[MERGES]
    check_fit(one.name, folder, base)
    if packed(model):
        raise ModelMissing(f"The weights of {base.name} are packed; no adapter can be added into them.")
    served = served_as(one.name, MERGES, folder)
    target = cache / "served" / f"{served}-in-{base.fingerprint}-{dtype}"
    if target.is_dir():
        return target, served
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):  # servers that start together want the same
            if not target.is_dir():
                note(f"adding {served} into the weights of {base.name}")
                _make(model, folder, dtype, target)
    except OSError as error:
        raise ModelMissing(f"{target} cannot be made: {error}") from error
    return target, served


def _make(model: Path, folder: Path, dtype: str, target: Path) -> None:
    """Beside the target and renamed, so that it is whole or not there. Under a name of its own: what a kill left is
    removed by the next one, or there would be more gigabytes with every kill."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = target.with_name(f".merge-{target.name}")
    shutil.rmtree(made, ignore_errors=True)
    try:
        with quiet_transformers():
            load: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
            # In the format that is served, as the model in process adds it, so that both round alike.
            plain = load(model, dtype=getattr(torch, dtype), trust_remote_code=False)
            whole: Any = PeftModel.from_pretrained(plain, folder).merge_and_unload()
            whole.save_pretrained(made)
        for file in model.iterdir():  # the tokenizer, its template, what else is no weight
            if file.is_file() and not file.name.endswith(_WEIGHTS) and not (made / file.name).exists():
                shutil.copyfile(file, made / file.name)
        if (folder / CARD).is_file():
            shutil.copyfile(folder / CARD, made / CARD)
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
