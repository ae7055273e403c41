"""One adapter that works everywhere in a prompt, or from the task's own words on only (activated LoRA).

    recgraph train examples                            # in a folder with params.yaml and data/
    python benchmarks/activated.py --folder . --cases 400 --out activated.jsonl

What stands before `[Task]` is then read by the base model alone, so that one copy of it in memory does for every
adapter and for none. With one adapter for both tasks of the recommender it is shared anyhow; this measures what
activation would cost in quality. Both learn `next` and `fit` from the same trees in the same order, by the plain loop
below (AdamW, cosine), so that they differ in the activation alone; peft finds the words in rows of text, not in trees,
so it is done here by a mask over what the adapter adds. Held-out cases: the mean log-perplexity of the right answer to
NEXT, and the AUC of Yes/No within each case against all but the `hard` products, with paired differences from the first
and their 95 % interval by a bootstrap over shoppers. Prints a JSON line for each, kept in `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tasks import by_case, told
from transformers import get_cosine_schedule_with_warmup

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.tools.llm.places import find_llm, quiet_transformers
from recgraph.tools.llm.protocol import Prompt
from recgraph.train.examples.rows import Row, read_rows
from recgraph.train.lora.exam import Judgement
from recgraph.train.lora.job import draw, first
from recgraph.train.lora.model import load_base, perplexities, tree_loss
from recgraph.train.lora.tokens import Lesson, Tokens
from recgraph.train.lora.training import LoraSettings, lora_of
from recgraph.train.lora.trees import Example, Tree, grow
from recgraph.train.params import load_params, settings_of

INVOCATION = "[Task]"  # an adapter that is activated works from here on
Groups = Mapping[int, Sequence[Row]]


class Activation:
    """Where in a tree the adapter of a model works. Hangs itself on the model; `words` are the tokens that call it, ()
    if it works everywhere."""

    def __init__(self, model: Any, words: Sequence[int]) -> None:
        self._words, self._at = torch.tensor(words), torch.empty(0)
        self.active = self.read = 0  # tokens
        model.get_base_model().register_forward_pre_hook(self._see, with_kwargs=True)
        for name, module in model.named_modules():
            if name.endswith("lora_B.default"):
                module.register_forward_hook(self._add)

    def _see(self, _: Any, __: Any, asked: Mapping[str, Any]) -> None:
        tokens, size = asked["input_ids"][0], len(self._words)
        at = torch.ones(len(tokens), dtype=torch.bool)
        if size:
            calls = (tokens.unfold(0, size, 1) == self._words).all(1).nonzero()[:, 0]
            at = asked["attention_mask"][0, 0][:, calls].any(1)  # a token that sees a call, or is one
        self._at = at[None, :, None]
        self.active, self.read = self.active + int(at.sum()), self.read + len(tokens)

    def _add(self, _: Any, __: Any, added: torch.Tensor) -> torch.Tensor:
        return added * self._at


def with_adapter(base: Path, settings: LoraSettings) -> Any:
    """The base model with a new adapter."""
    from peft import get_peft_model  # after recgraph, which quiets what is printed as this is imported

    torch.manual_seed(settings.seed)
    with quiet_transformers():
        model = load_base(base)
        return get_peft_model(model, lora_of(model, settings))


def calling(tokens: Tokens) -> list[int]:
    """The tokens of the invocation as prompts have them."""
    prompts = [Prompt("S", f"U\n\n{INVOCATION}\n{task}") for task in ("NEXT", "FIT")]
    one, other, without = (
        list(example.prompt)
        for example in tokens.examples([Lesson(prompt, "A") for prompt in (*prompts, Prompt("S", "U\n\nno"))])
    )
    begin = next(place for place, (a, b) in enumerate(zip(one, without, strict=False)) if a != b)
    end = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[begin:end]


def learn(model: Any, examples: Sequence[Example], settings: LoraSettings, note: Callable[[str], None]) -> None:
    """One run over the examples, in trees, `settings.batch` examples a step."""
    trees = [places for places, _ in grow(examples, settings.tree_tokens)]
    each = max(1, round(settings.batch / (len(examples) / len(trees))))
    steps = [trees[low : low + each] for low in range(0, len(trees), each)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(settings.warmup * len(steps)), len(steps))
    model.train()
    started = time.perf_counter()
    for number, step in enumerate(steps, 1):
        total = 0.0
        for places in step:
            batch = Tree([examples[place] for place in places]).tensors()
            loss = tree_loss(model, batch).sum() / batch["weights"].sum() / len(step)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if number % 10 == 0 or number == len(steps):
            left = (time.perf_counter() - started) / number * (len(steps) - number)
            note(f"step {number}/{len(steps)}, loss {total:.3f}, {left / 60:.0f} min left")


def sit(model: Any, tokens: Tokens, groups: Groups) -> tuple[NDArray[np.float64], list[Judgement]]:
    """float64[cases]: of each case's right answer to NEXT the log-perplexity; and what is said of its products."""
    asked = [(number, row) for number, rows in enumerate(groups.values()) for row in rows]
    lessons = [
        Lesson(Prompt(row.system, row.user), answer, stop=False)
        for _, row in asked
        for answer in (("Yes", "No") if row.judged else (row.answer,))
    ]
    surprise = iter([math.log(one) for one in perplexities(model, tokens.examples(lessons))])
    written, judged = np.zeros(len(groups)), list[Judgement]()
    for number, row in asked:
        if row.judged:
            yes, no = -next(surprise), -next(surprise)
            judged.append(Judgement(number, row.kind, yes - no, yes if row.answer == "Yes" else no))
        else:
            written[number] = next(surprise)
    return written, judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where params.yaml and data/examples are")
    parser.add_argument("--preset", default="processor", help="of params.yaml: how both are trained")
    parser.add_argument("--cases", type=int, default=400, help="learnt from")
    parser.add_argument("--held-out", type=int, default=0, help="cases; 0: all")
    parser.add_argument("--out", type=Path, default=Path("activated.jsonl"))
    asked = parser.parse_args()
    base, before = find_llm(), os.getloadavg()[0]
    own = settings_of(LoraSettings, load_params(asked.folder)["presets"][asked.preset]["recommend"], "presets")
    settings, tokens = replace(own, cases=asked.cases), Tokens(base)
    rows = asked.folder / "data" / "examples" / "recommend.parquet"
    examples = draw(first(read_rows(rows, "train"), asked.cases), settings, 0, tokens)
    groups = first(read_rows(rows, "test"), asked.held_out)
    users = np.unique([group[0].user_id for group in groups.values()], return_inverse=True)[1]
    earlier: dict[str, NDArray[np.float64]] = {}
    for name, words in (("everywhere", ()), ("from the task on", calling(tokens))):
        model, started = with_adapter(base, settings), time.perf_counter()
        activation = Activation(model, words)
        learn(model, examples, settings, lambda text, name=name: print(f"{name}: {text}", file=sys.stderr))  # type: ignore[misc]
        learnt, share = time.perf_counter() - started, activation.active / activation.read
        written, judged = sit(model, tokens, groups)
        line: dict[str, Any] = {"adapter": name, "share of tokens active": round(share, 3)}
        for what, values in {"log-perplexity of NEXT": written, "auc": by_case(judged, len(groups))}.items():
            of = told(values, earlier.get(what), users)
            line |= {what + extra: interval for extra, interval in of.items()}
            earlier.setdefault(what, values)
        line |= {"learnt from": asked.cases, "cases": len(groups), "shoppers": len(np.unique(users))}
        facts = {"version": __version__, "machine": machine(), "load": [round(before, 1), round(os.getloadavg()[0], 1)]}
        facts |= {"date": str(date.today()), "command": f"python {' '.join(sys.argv)}"}
        text = json.dumps({**facts, **line, "seconds to learn": round(learnt)})
        print(text, flush=True)
        with asked.out.open("a", encoding="utf-8") as lines:
            lines.write(text + "\n")


if __name__ == "__main__":
    main()
