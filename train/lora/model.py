"""A base model over token trees (`train/lora/trees.py`): how it is loaded, its loss, and what it makes of answers.
How it is trained is `train/lora/training.py`'s, so that measuring needs no trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AutoModelForCausalLM, BitsAndBytesConfig

from recgraph.tools.llm.places import placement, quiet_transformers
from recgraph.train.lora.trees import Example, Tree, grow


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


def flex_tree_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockMask,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The same on a card, under the mask of `tree_blocks`: blocks of the tree that see nothing of each other are not
    computed, so that attention grows with what is shared and not with the square of the tokens."""
    # A layer that is compiled takes it in.
    flex: Any = flex_attention if torch.compiler.is_compiling() else compiled_flex()
    found: Any = flex(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True)
    return found.transpose(1, 2).contiguous(), None


@lru_cache(maxsize=1)
def compiled_flex() -> Callable[..., Any]:
    """Torch's FlexAttention as one kernel for each length that comes. (Not compiled it computes everything.)"""
    settings: Any = torch._dynamo.config
    # Lengths (`Tree.tensors` fills them up), times with or without a gradient; past the limit nothing is compiled.
    settings.recompile_limit = max(settings.recompile_limit, 64)
    found: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
    return found


AttentionInterface.register("tree", tree_attention)
AttentionInterface.register("tree_flex", flex_tree_attention)


def tree_mask(enter: torch.Tensor, leave: torch.Tensor) -> torch.Tensor:
    """bool[1, 1, n, n]: whether a token (row) sees another (column), which is itself or an ancestor of it."""
    seen = enter[None, :] <= enter[:, None]
    seen &= enter[:, None] < leave[None, :]
    return seen[None, None]


def tree_blocks(enter: torch.Tensor, leave: torch.Tensor) -> BlockMask:
    """The same as FlexAttention reads it."""

    def sees(_: torch.Tensor, __: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (enter[key] <= enter[query]) & (enter[query] < leave[key])

    return create_block_mask(sees, None, None, len(enter), len(enter), device=str(enter.device))


def attention_on(device: str, dtype: torch.dtype) -> str:
    """What reads a tree best on a device: products on a processor, FlexAttention on a card that compiles it, else
    torch's own attention under a dense mask."""
    if device == "cpu":
        return "tree"
    return "tree_flex" if flex_works(device, dtype) else "sdpa"


@lru_cache(maxsize=2)
def flex_works(device: str, dtype: torch.dtype) -> bool:
    """Whether FlexAttention compiles here (it needs Triton and a C compiler) and gives what torch's own attention does,
    forward and backward. Tried once, in some seconds."""
    draw = torch.Generator().manual_seed(0)
    asked, known, values = (torch.randn(1, heads, 256, 64, generator=draw) for heads in (3, 1, 1))
    enter = torch.arange(256, device=device, dtype=torch.int32)
    leave = (enter + 50).clamp(max=256)
    results = []
    try:
        for flex in (True, False):
            query, key, value = (one.to(device, dtype).requires_grad_() for one in (asked, known, values))
            if flex:
                found = compiled_flex()(query, key, value, block_mask=tree_blocks(enter, leave), enable_gqa=True)
            else:
                found = torch.nn.functional.scaled_dot_product_attention(
                    query, key, value, attn_mask=tree_mask(enter, leave), enable_gqa=True
                )
            gradients = torch.autograd.grad(found.float().square().sum(), (query, key, value))
            results.append(torch.cat([one.detach().float().flatten() for one in (found, *gradients)]))
    except (RuntimeError, ImportError, OSError, ValueError):  # whatever a compiler that is not all there raises
        return False
    return bool((results[0] - results[1]).abs().mean() < 0.02 * results[1].abs().mean())


def length_step(model: Any, tree_tokens: int) -> int:
    """What lengths of trees are filled up to: nearly all then have one, which a card compiles for."""
    return 128 * math.ceil(tree_tokens / 128) if _attention(model) == "tree_flex" else 1


def compile_layers(model: Any) -> None:
    """Has each layer compiled for each length of trees it reads, on a card: else thousands of small kernels are
    launched one by one, and the card waits for the next one longer than it computes."""
    if _attention(model) == "tree_flex":
        settings: Any = torch._dynamo.config
        settings.recompile_limit = max(settings.recompile_limit, 64)
        for layer in model.get_decoder().layers:
            layer.compile(dynamic=False)


def _attention(model: Any) -> str:
    return str(getattr(model, "module", model).config._attn_implementation)


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
            attn_implementation=attention_on(device, dtype),
            quantization_config=config,
            trust_remote_code=False,
        )


def tree_loss(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Weighted cross-entropy of a tree's targets, float32[targets]: only at places that predict something is the
    vocabulary computed."""
    see = tree_blocks if _attention(model) == "tree_flex" else tree_mask
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=see(batch["enter"], batch["leave"]),
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
    device, step = next(model.parameters()).device, length_step(model, tree_tokens)
    found: list[float] = []
    for places, _ in grow(examples, tree_tokens):
        # Targets come in the examples' order.
        chosen = [examples[place] for place in places]
        batch = {name: tensor.to(device) for name, tensor in Tree(chosen).tensors(step).items()}
        losses = tree_loss(model, {**batch, "weights": torch.ones_like(batch["weights"])}).cpu()
        parts = torch.split(
            losses, [len(example.answer) - (example.silent[1] - example.silent[0]) for example in chosen]
        )
        found += [math.exp(min(50.0, float(part.mean()))) for part in parts]
    return found
