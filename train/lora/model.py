"""A base model over token trees (`train/lora/trees.py`): how it is loaded, its loss, and what it makes of answers.
How it is trained is `train/lora/training.py`'s, so that measuring needs no trainer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, BitsAndBytesConfig

from recgraph.tools.llm.places import placement, quiet_transformers
from recgraph.train.lora.trees import Example, build, grow


def tree_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one row under a mask bool[1, 1, n, m], in plain matrix products: on a processor the backward pass of
    torch's own takes four times as long (42 against 11 ms for 700 tokens), which is a fifth of a training step."""
    heads, tokens, size = query.shape[1:]
    shared = heads // key.shape[1]  # query heads of one key head, laid end to end
    bias = torch.zeros_like(attention_mask[0, 0], dtype=query.dtype).masked_fill_(~attention_mask[0, 0], -torch.inf)
    asked = query[0].reshape(key.shape[1], shared * tokens, size)
    weights = torch.baddbmm(bias.repeat(shared, 1), asked, key[0].transpose(1, 2), alpha=scaling).softmax(-1)
    found = (weights @ value[0]).reshape(1, heads, tokens, size)
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register("tree", tree_attention)


def load_base(folder: Path, quantize: str = "none") -> Any:
    """The base model, ready to be trained on: bf16 where the hardware multiplies it, or its weights in 4 bits (nf4,
    doubly quantised)."""
    device, dtype = placement()
    config = None
    if quantize == "nf4":
        packed: Any = BitsAndBytesConfig
        config = packed(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="tree" if device == "cpu" else "sdpa",
            quantization_config=config,
            trust_remote_code=False,
        )


def tree_loss(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Weighted cross-entropy of a tree's targets, float32[targets]: only at places that predict something is the
    vocabulary computed."""
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        logits_to_keep=batch["positions"],
        use_cache=False,
    ).logits[0]
    losses: torch.Tensor = torch.nn.functional.cross_entropy(
        logits[batch["rows"]].float(), batch["labels"], reduction="none"
    )
    return losses * batch["weights"]


@torch.no_grad()
def perplexities(model: Any, examples: Sequence[Example], tree_tokens: int = 1536) -> list[float]:
    """Perplexity of each example's answer given its prompt: exp of the mean negative log-likelihood of the answer's
    tokens."""
    model.eval()
    device = next(model.parameters()).device
    found: list[float] = []
    for places in grow(examples, tree_tokens):
        # Weights tell the examples of a tree apart: targets come in the examples' order.
        chosen = [examples[place] for place in places]
        batch = {name: tensor.to(device) for name, tensor in build(chosen).tensors().items()}
        losses = tree_loss(model, {**batch, "weights": torch.ones_like(batch["weights"])}).cpu()
        parts = torch.split(
            losses, [len(example.answer) - (example.silent[1] - example.silent[0]) for example in chosen]
        )
        found += [math.exp(min(50.0, float(part.mean()))) for part in parts]
    return found
