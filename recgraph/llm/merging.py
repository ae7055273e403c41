"""A base model with an adapter added into its weights, as a model of its own in a folder: what is served on a CPU,
where vLLM computes adapters token by token (docs/serving-llm.md).
How it is served is launch.py's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recgraph.tools.llm.adapter_sets import CARD, AdapterSet, Base, check_fit, served_as
from recgraph.tools.llm.places import quiet_transformers

MERGES = "recommend"  # of a set: the adapter that is asked at every recommendation


def merged(
    model: Path, one: AdapterSet, dtype: str, cache: Path, note: Callable[[str], object] = lambda text: None
) -> tuple[Path, str]:
    """The folder of the model with the set's `recommend` in its weights, in a number format ("float32", "bfloat16"),
    and the name that the adapter is served under. Made once; its name tells both weights. `note` hears of the work.

    Raises ModelMissing for an adapter that is not for this model, KeyError for a set without `recommend`,
    ModuleNotFoundError without recgraph[local].
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, folder = Base.of(model), one.adapters[MERGES]
    check_fit(one.name, folder, base)
    served = served_as(one.name, MERGES, folder)
    target = cache / "served" / f"{served}-in-{base.fingerprint}-{dtype}"
    if target.is_dir():
        return target, served
    note(f"adding {served} into the weights of {base.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=target.parent) as work, quiet_transformers():
        load: Callable[..., Any] = AutoModelForCausalLM.from_pretrained
        # In the format that is served, as the model in process adds it, so that both round alike.
        plain = load(model, dtype=getattr(torch, dtype), trust_remote_code=False)
        whole: Any = PeftModel.from_pretrained(plain, folder).merge_and_unload()
        made = Path(work) / target.name
        whole.save_pretrained(made)
        for file in model.iterdir():  # the tokenizer, its template, what else is no weight
            if file.is_file() and file.suffix not in (".safetensors", ".bin") and not (made / file.name).exists():
                shutil.copyfile(file, made / file.name)
        if (folder / CARD).is_file():
            shutil.copyfile(folder / CARD, made / CARD)
        made.rename(target)
    return target, served
