"""Token trees: the same loss and gradient as the examples one by one, with fewer tokens and no padding."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_mask, flex_attention
from transformers import LlamaConfig, LlamaForCausalLM

from recgraph.train.lora.model import (
    attention_on,
    compile_layers,
    flex_works,
    length_step,
    perplexities,
    tree_blocks,
    tree_loss,
    tree_mask,
)
from recgraph.train.lora.trees import Example, Tree, grow

CASES = [
    Example((1, 2, 3, 4, tail), (50 + tail % 2, 9), weight=1.0 if tail == 5 else 0.25, group=0) for tail in (5, 6, 7)
]
CASES += [Example((1, 2, 8, 4, tail), (50,), group=1) for tail in (5, 6)]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def alone(model: LlamaForCausalLM, example: Example, whole: bool = False) -> torch.Tensor:
    """The example's mean loss by the plain way: one sequence, shifted by one."""
    tokens = torch.tensor([[*example.prompt, *example.answer]])
    losses = torch.nn.functional.cross_entropy(model(input_ids=tokens).logits[0, :-1], tokens[0, 1:], reduction="none")
    return losses.mean() if whole else losses[len(example.prompt) - 1 :].mean()


@pytest.mark.parametrize("whole", [False, True])
def test_a_tree_has_the_loss_of_its_examples_one_by_one(model: LlamaForCausalLM, whole: bool) -> None:
    together = tree_loss(model, Tree(CASES, whole=whole).tensors()).sum()
    one_by_one = sum(example.weight * alone(model, example, whole).item() for example in CASES)
    assert together.item() == pytest.approx(float(one_by_one), rel=1e-5)


def test_a_tree_has_the_gradient_of_its_examples_one_by_one(model: LlamaForCausalLM) -> None:
    def gradient(loss: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        loss.backward()
        weight = model.model.layers[0].self_attn.q_proj.weight
        assert weight.grad is not None
        return weight.grad.clone()

    together = gradient(tree_loss(model, Tree(CASES).tensors()).sum())
    one_by_one = gradient(sum((example.weight * alone(model, example) for example in CASES), torch.zeros(())))
    assert torch.allclose(together, one_by_one, atol=1e-6)


def test_attention_in_plain_products_has_the_loss_and_the_gradient_of_torchs_own(model: LlamaForCausalLM) -> None:
    def found(kind: str) -> tuple[float, torch.Tensor]:
        model.set_attn_implementation(kind)
        model.zero_grad()
        loss = tree_loss(model, Tree(CASES).tensors()).sum()
        loss.backward()
        weight = model.model.layers[0].self_attn.k_proj.weight.grad
        assert weight is not None
        return loss.item(), weight.clone()

    (plain, gradient), (own, same) = found("tree"), found("sdpa")
    assert plain == pytest.approx(own, rel=1e-6)
    assert torch.allclose(gradient, same, atol=1e-7)


def test_what_prompts_share_is_computed_once_and_nothing_is_padded() -> None:
    tree = Tree(CASES)
    # 1 2 | 3 4 5 (50+1), 3 4 6 50, 3 4 7 51 | 8 4 5, 8 4 6; the last token of an example predicts nothing
    assert len(tree) == 2 + 2 + 3 * 2 + 2 + 2 * 1
    assert sum(map(len, CASES)) == 33


def test_a_token_sees_itself_and_its_ancestors_only() -> None:
    tensors = Tree([Example((1, 2), (3, 4)), Example((1, 5), (3, 4))]).tensors()
    assert tensors["input_ids"].tolist() == [[1, 2, 3, 5, 3]]
    assert tensors["position_ids"].tolist() == [[0, 1, 2, 1, 2]]
    assert tree_mask(tensors["enter"], tensors["leave"])[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


def test_a_branch_that_grows_again_later_is_seen_by_its_own_alone() -> None:
    again = [Example((1, 2, 3), (4, 5)), Example((1, 6), (4, 5)), Example((1, 2, 3), (7, 8))]
    tensors = Tree(again).tensors(8)
    assert tensors["input_ids"].tolist() == [[1, 2, 3, 4, 7, 6, 4, 0]]  # filled up to eight
    assert tree_mask(tensors["enter"], tensors["leave"])[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]


def large_tree() -> dict[str, torch.Tensor]:
    """Forty cases of a long history and eight candidates each, in an order that comes back to some: 640 tokens."""
    draw = torch.Generator().manual_seed(3)
    cases = [[1, 2, *torch.randint(3, 60, (6,), generator=draw).tolist()] for _ in range(16)]
    order = [case for _ in range(2) for case in cases]
    more = [torch.randint(3, 60, (4,), generator=draw).tolist() for _ in range(4 * len(order))]
    examples = [Example((*order[number // 4], *tail), (7, 9)) for number, tail in enumerate(more)]
    return Tree(examples).tensors(128)


def test_the_mask_of_blocks_is_the_dense_mask() -> None:
    tensors = large_tree()
    enter, leave = tensors["enter"], tensors["leave"]
    dense, blocks = tree_mask(enter, leave), tree_blocks(enter, leave)
    size = len(enter)
    assert size % 128 == 0
    assert size > 512
    assert torch.equal(create_mask(blocks.mask_mod, 1, 1, size, size, device="cpu"), dense)
    # Which blocks are computed at all: those in which anything is seen.
    seen = dense[0, 0].reshape(size // 128, 128, size // 128, 128).any(3).any(1)
    assert torch.equal(blocks.to_dense()[0, 0].bool(), seen)
    assert not seen.all()


def test_flex_attention_has_the_loss_of_torchs_own(model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recgraph.train.lora.model.compiled_flex", lambda: flex_attention)  # as it is on a processor
    tensors, found = Tree(CASES).tensors(128), {}
    for kind in ("tree_flex", "sdpa"):
        model.set_attn_implementation(kind)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not compiled
            found[kind] = tree_loss(model, tensors)
    assert torch.allclose(found["tree_flex"], found["sdpa"], rtol=1e-5)
    assert found["sdpa"].sum().item() == pytest.approx(tree_loss(model, Tree(CASES).tensors()).sum().item(), rel=1e-5)


def test_a_card_that_cannot_compile_reads_trees_under_a_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr("recgraph.train.lora.model.compiled_flex", broken)
    flex_works.cache_clear()
    assert attention_on("cpu", torch.float32) == "tree"
    assert not flex_works("cpu", torch.float32)
    monkeypatch.setattr("recgraph.train.lora.model.flex_works", lambda *_: False)
    assert attention_on("cuda", torch.bfloat16) == "sdpa"
    monkeypatch.setattr("recgraph.train.lora.model.flex_works", lambda *_: True)
    assert attention_on("cuda", torch.bfloat16) == "tree_flex"
    flex_works.cache_clear()


def test_a_card_whose_kernels_give_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def attention(wrong: float) -> Callable[..., torch.Tensor]:
        def found(query: torch.Tensor, *others: torch.Tensor, block_mask: BlockMask, enable_gqa: bool) -> torch.Tensor:
            mask = create_mask(block_mask.mask_mod, 1, 1, 256, 256, device="cpu")
            true = torch.nn.functional.scaled_dot_product_attention(
                query, *others, attn_mask=mask, enable_gqa=enable_gqa
            )
            return true * (1 + wrong)

        return found

    for wrong, works in ((0.0, True), (0.1, False)):
        monkeypatch.setattr("recgraph.train.lora.model.compiled_flex", lambda wrong=wrong: attention(wrong))
        flex_works.cache_clear()
        assert flex_works("cpu", torch.float32) is works
    flex_works.cache_clear()


def test_layers_are_compiled_for_one_length_of_trees_on_a_card_and_not_on_a_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **given: asked.append(type(layer).__name__))
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    for kind, layers, step in (("tree", 0, 1), ("sdpa", 0, 1), ("tree_flex", 2, 1024)):
        model = LlamaForCausalLM(config)
        model.set_attn_implementation(kind)
        compile_layers(model)
        assert asked == ["LlamaDecoderLayer"] * layers
        assert length_step(model, 1000) == step


def test_a_tree_is_the_same_in_any_order_of_its_examples(model: LlamaForCausalLM) -> None:
    """What two examples share was missed once where a third stood between them."""
    draw = torch.Generator().manual_seed(5)
    examples = [
        Example(torch.randint(1, 4, (int(size),), generator=draw).tolist(), (7, number % 5), number + 1)
        for number, size in enumerate(torch.randint(1, 9, (40,), generator=draw))
    ]
    losses = torch.tensor([example.weight * alone(model, example).item() for example in examples])
    paths = {(*example.prompt, *example.answer[:-1])[:end] for example in examples for end in range(1, len(example))}
    for order in (range(40), torch.randperm(40, generator=draw).tolist()):
        tree = Tree([examples[place] for place in order])
        assert len(tree) == len(paths)
        assert sum(size for _, size in grow([examples[place] for place in order], 1000)) == len(paths)
        found = tree_loss(model, tree.tensors()).reshape(40, 2).sum(1)
        assert torch.allclose(found, losses[list(order)], rtol=1e-4)


def test_trees_keep_the_order_and_the_limit() -> None:
    trees = list(grow(CASES, 11))
    assert [place for places, _ in trees for place in places] == list(range(len(CASES)))
    assert all(len(Tree([CASES[place] for place in places])) == size <= 11 for places, size in trees)
    assert [len(places) for places, _ in grow(CASES, 3)] == [1] * len(CASES)  # longer than the limit: a tree of its own


def test_perplexities_are_those_of_each_answer_alone(model: LlamaForCausalLM) -> None:
    found = perplexities(model, CASES, 12)
    with torch.no_grad():
        assert found == pytest.approx([alone(model, example).exp().item() for example in CASES], rel=1e-4)


def test_silent_tokens_are_read_but_not_learnt(model: LlamaForCausalLM) -> None:
    spoken, half = Example([3, 4, 5], [6, 7, 8, 9]), Example([3, 4, 5], [6, 7, 8, 9], silent=(1, 3))
    tree = Tree([half]).tensors()
    assert tree["labels"].tolist() == [6, 9]
    assert tree["weights"].tolist() == [0.5, 0.5]
    assert tree["input_ids"].tolist() == Tree([spoken]).tensors()["input_ids"].tolist()
    alone, both = perplexities(model, [half]), perplexities(model, [spoken, half, spoken])
    assert both[1] == pytest.approx(alone[0], rel=1e-5)
    assert both[0] == both[2] != both[1]
