"""Linear layers with an adapter added into their weights, which are laid out as oneDNN multiplies them fastest; and
their exchange from adapter to adapter.

A pass over few tokens is bound by the weights: torch puts those of a bfloat16 layer into oneDNN's order in every call,
which takes three times as long as multiplying four tokens, and a LoRA adds two small products to each of 210 layers. It
knows layers, peft's among them, and neither prompts nor caches.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

# of merged weights that are kept; a model of more than this is run as peft has it
LIMIT = 1 << 30


class MergedLinear(torch.nn.Module):
    """A linear layer, plain or peft's, that multiplies with the `weight` it was last given; without one as ever."""

    weight: torch.Tensor | None

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source
        self.weight = None
        self._bias: torch.Tensor | None = _plain(source).bias
        self._packed = _can_pack(_plain(source).weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight is None:
            found: torch.Tensor = self.source(x)
            return found
        if self._packed:
            product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self._bias, "none", [], "")
            return product
        return torch.nn.functional.linear(x, self.weight, self._bias)

    def merged(self, adapter: str | None) -> torch.Tensor:
        """The weight with an adapter added."""
        weight: torch.Tensor = _plain(self.source).weight.detach()
        if adapter in getattr(self.source, "lora_A", ()):
            summed = copy.deepcopy(self.source)
            summed.merge(adapter_names=[adapter])
            weight = _plain(summed).weight.detach()
        # the order does not depend on the number of tokens; with one given, oneDNN takes the order of a product
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 256) if self._packed else weight
        return packed


class MergedWeights:
    """The linear layers of a model whose weights are exchanged. The sets used last are kept, as many as `LIMIT`
    allows: one is made in about half a second for 135 M parameters, and set in less than a millisecond."""

    def __init__(self, layers: list[MergedLinear], size: int) -> None:
        self._layers = layers
        self._most = max(1, LIMIT // max(1, size))
        self._sets: OrderedDict[str | None, list[torch.Tensor]] = OrderedDict()

    @classmethod
    def of(cls, model: Any) -> MergedWeights | None:
        """Replaces the layers in a model, but for its head, which reads few rows of many tokens. None, and the model as
        it was, where that would take more memory than `LIMIT` or an adapter changes more than linear layers."""
        found = list(_linear_layers(model, model.get_output_embeddings()))
        size = sum(_plain(layer).weight.nbytes for _, _, layer in found)
        adapted = sum(hasattr(module, "lora_A") for module in model.modules())
        if size > LIMIT or adapted > sum(hasattr(layer, "lora_A") for _, _, layer in found):
            return None
        layers = [MergedLinear(layer) for _, _, layer in found]
        for (parent, name, _), layer in zip(found, layers, strict=True):
            setattr(parent, name, layer)
        return cls(layers, size)

    def use(self, adapter: str | None) -> None:
        """Sets the weights of an adapter, or the base model's for None."""
        if adapter not in self._sets:
            while len(self._sets) >= self._most:
                self._sets.popitem(last=False)
            self._sets[adapter] = [layer.merged(adapter) for layer in self._layers]
        self._sets.move_to_end(adapter)
        for layer, weight in zip(self._layers, self._sets[adapter], strict=True):
            layer.weight = weight


def _plain(layer: Any) -> Any:
    """The layer itself, or what peft wraps."""
    return getattr(layer, "base_layer", layer)


def _linear_layers(parent: torch.nn.Module, head: Any) -> Iterator[tuple[torch.nn.Module, str, Any]]:
    """Linear layers and peft's over them: what holds each, its name there, and the layer."""
    for name, child in parent.named_children():
        if isinstance(_plain(child), torch.nn.Linear):
            if child is not head or hasattr(child, "lora_A"):
                yield parent, name, child
        else:
            yield from _linear_layers(child, head)


def _can_pack(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies such a weight on this machine."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
