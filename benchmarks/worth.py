"""What a language model is worth beside the ranking: the test cases of the pipeline's shop, with and without what it
says.

    python benchmarks/worth.py [--folder .] [--adapter default] [--cases 400] [--keep FOLDER] [--part valid]

Reads params.yaml and data/ of the folder, as `dvc repro` leaves them: all that is fitted knows what was before the cut
alone, and the adapter learnt from cases before it. For each test case the ranking gives its first twenty; the model
names the next product (task NEXT), and says Yes or No to each of the twenty, with and without that prediction (task
FIT). What was asked is kept in --keep and not asked again.

How much a Yes counts beside the ranking's own order is learnt, not set: the chance of a candidate is a softmax of
weighed features (the logarithm of its place; the log odds of Yes against No; to be the product that was named), fitted
on half of the users and measured on the other half, and the other way round. What fits more of the named parts of a
wish stays before what fits less. As it is served, nothing is asked where the ranking is sure of its first; other
bounds of that are printed too. `--part valid` asks validation cases; the `odds learnt` that it prints are what an
adapter's card may say (metrics.worth), and `--odds` measures them on test cases. Prints a line for each way to rank:
NDCG@10 and MRR with the difference to the ranking alone and its 95 % interval by a bootstrap over users, and seconds a
case.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recgraph import __version__
from recgraph.evaluation.origin import machine
from recgraph.evaluation.statistics import intervals
from recgraph.graph import prompts
from recgraph.graph.blend import SURE, blend, is_sure
from recgraph.graph.nodes import NodeSettings
from recgraph.settings import Settings
from recgraph.store import snapshot
from recgraph.tools.candidates import Candidate
from recgraph.tools.llm.adapter_sets import find_set
from recgraph.tools.llm.local import LocalLLM
from recgraph.tools.llm.places import find_llm
from recgraph.train.evaluate import sample
from recgraph.train.examples.served import Served
from recgraph.train.examples.stage import Writer, chat_of
from recgraph.train.memory import read_queries
from recgraph.train.metrics import MISS, Places, mrr, ndcg
from recgraph.train.params import load_params
from recgraph.train.pipeline import progress, split_folder
from recgraph.train.prepare import Case, read_cases

Floats = NDArray[np.float64]
PENALTY = 1e-2  # on squared weights, for few cases
SERVED = (0.0, 0.1, 0.25, 0.5, 0.75)  # `rerank_weight`: below 1 nothing moves more than a few places
TRIED = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 2.0)  # chances of the first from which on nothing is asked; 2: never
JUDGED = NodeSettings(rerank_weight=SERVED[1]).judged(10)
# the features of each way to rank, beside the place
WAYS: Mapping[str, tuple[str, ...]] = {
    "place alone": (),
    "with Yes/No": ("yes",),
    "with the named product": ("named",),
    "with both": ("yes", "named"),
}


@dataclass(frozen=True)
class Answered:
    """A case, its candidates best first, how many named parts of the wish each `fits`, what the model said of them, the
    product it named, the order in which the product retrieves with it, seconds for NEXT and FIT, and what the ranking
    holds its first likely."""

    user_id: str
    target: str
    candidates: list[str]
    fits: list[int]
    logits: list[float]
    named: str
    voted: list[str]
    seconds: tuple[float, float]
    chance: float = 0.0

    @property
    def judged(self) -> list[Candidate]:
        """Those that can come among the ten that the product shows."""
        pairs = zip(self.candidates[:JUDGED], self.fits[:JUDGED], strict=True)
        return [Candidate(item_id, 0.0, "sequence", ("sequence",), fits, self.chance) for item_id, fits in pairs]


def ask(
    cases: Sequence[Case], writer: Writer, served: Served, llm: LocalLLM, adapters: Mapping[str, str]
) -> Iterator[Answered]:
    """The cases one by one."""
    nodes = writer.nodes
    for case in progress(cases, "Asking"):
        state = writer.state(case)
        context, shown = nodes.context(state)
        found = served.candidates(case, state["history"], state["memory"])
        items = nodes.reader.items([one.item_id for one in found])
        begun = time.perf_counter()
        form = prompts.next_form(shown, state["items"], free_title=True) if shown else None
        [answer], _ = llm.generate(
            [prompts.next_prompt(context, wording=nodes.settings.wording)], form=form, adapter=adapters.get("next")
        )
        told = prompts.parse_next(answer.text, frozenset(shown).__contains__, state["items"])
        named = time.perf_counter()
        asked = prompts.fit_prompts(context, [items[one.item_id] for one in found], wording=nodes.settings.wording)
        pairs, _ = llm.score(asked, adapter=adapters.get("fit"))
        judged = time.perf_counter()
        voted = served.candidates(case, state["history"], state["memory"], (told.item_id, told.title))
        yield Answered(
            case.user_id,
            case.item_id,
            [one.item_id for one in found],
            [one.fits for one in found],
            [yes - no for yes, no in pairs],
            told.item_id,
            [one.item_id for one in voted],
            (named - begun, judged - named),
            found[0].chance or 0.0,
        )


# ── Ranking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def features(one: Answered, names: Sequence[str]) -> Floats:
    """float64[candidates, 1 + names]."""
    places = np.arange(len(one.candidates), dtype=np.float64)
    known = {
        "yes": np.array(one.logits),
        "named": np.array([item_id == one.named for item_id in one.candidates], np.float64),
    }
    return np.stack([-np.log1p(places), *(known[name] for name in names)], axis=1)


def learn(cases: Sequence[Answered], names: Sequence[str]) -> Floats:
    """The weights under which the targets that are among the candidates are likeliest."""
    told = [(features(one, names), one.candidates.index(one.target)) for one in cases if one.target in one.candidates]

    def surprise(weights: Floats) -> float:
        scores = [(x @ weights, place) for x, place in told]
        lost = sum(np.logaddexp.reduce(score) - score[place] for score, place in scores)
        return float(lost / max(1, len(told)) + PENALTY * (weights @ weights))

    start = np.zeros(1 + len(names))
    start[0] = 1.0
    return np.asarray(minimize(surprise, start).x)


def place_of(one: Answered, weights: Floats, names: Sequence[str]) -> int:
    """The target's place, from 0; -1 where it is no candidate."""
    if one.target not in one.candidates:
        return -1
    order = np.lexsort((-(features(one, names) @ weights), -np.array(one.fits)))
    return int(np.flatnonzero(order == one.candidates.index(one.target))[0])


def served_place(one: Answered, weight: float, odds: float | None = None, sure: float = SURE) -> int:
    """The same where the product reranks with a `rerank_weight`, or by `odds`: those that can come among the ten it
    shows, unless the ranking is `sure` of its first."""
    order = one.candidates
    if not is_sure(one.judged, sure):
        pairs = [(logit, 0.0) for logit in one.logits[:JUDGED]]
        first = [line.candidate.item_id for line in blend(one.judged, pairs, weight, odds)]
        order = [*first, *one.candidates[JUDGED:]]
    return order.index(one.target) if one.target in order else -1


def gains(places: Sequence[int]) -> tuple[Floats, Floats]:
    """NDCG@10 and MRR of each case."""
    at = Places(np.array([MISS if place < 0 else place for place in places]), np.zeros(len(places), np.int64))
    return ndcg(at, 10), mrr(at)


def by_users(cases: Sequence[Answered], values: Floats) -> tuple[float, float, float]:
    """The mean over cases and its 95 % interval, whole users drawn."""
    users = np.unique([one.user_id for one in cases], return_inverse=True)[1]
    [found] = intervals(values, users)
    return found.mean, found.low, found.high


def learnt_odds(cases: Sequence[Answered]) -> float:
    """What Yes against No is worth as it is served, the logarithm of a place being 1: of those that are judged."""
    cut = [replace(one, candidates=one.candidates[:JUDGED], logits=one.logits[:JUDGED]) for one in cases]
    place, yes = learn(cut, WAYS["with Yes/No"])
    return float(max(0.0, yes / place))


def ranked(cases: Sequence[Answered], odds: float | None = None) -> dict[str, tuple[list[int], list[Floats]]]:
    """For each way the targets' places, each by weights of the other half of the users, and both weights; and as it is
    served with `odds` that come from elsewhere."""
    users = sorted({one.user_id for one in cases})
    halves = set(np.random.default_rng(7).permutation(users)[: len(users) // 2].tolist())
    found = {}
    for way, names in WAYS.items():
        weights = [learn([one for one in cases if (one.user_id in halves) != half], names) for half in (False, True)]
        found[way] = [place_of(one, weights[one.user_id in halves], names) for one in cases], weights
    served = {weight: [served_place(one, weight) for one in cases] for weight in SERVED}
    best = [best_weight(cases, served, halves, half) for half in (False, True)]
    held = [served[best[one.user_id in halves]][number] for number, one in enumerate(cases)]
    found["Yes/No as it is served"] = held, [np.array([best[half]]) for half in (False, True)]
    own = [one.candidates.index(one.target) if one.target in one.candidates else -1 for one in cases]
    voted = [one.voted.index(one.target) if one.target in one.voted else -1 for one in cases]
    yes = [place_of(one, np.array([0.0, 1.0]), ("yes",)) for one in cases]
    return {
        "the ranking": (own, []),
        **found,
        **({f"odds {odds}": ([served_place(one, 0.0, odds) for one in cases], [])} if odds else {}),
        **{
            f"odds {odds}, asked below a chance of {sure}": ([served_place(one, 0.0, odds, sure) for one in cases], [])
            for sure in (TRIED if odds else ())
        },
        "the named product as it is served": (voted, []),
        "Yes/No alone": (yes, []),
    }


def best_weight(cases: Sequence[Answered], served: Mapping[float, list[int]], halves: set[str], half: bool) -> float:
    """The best of SERVED for the other half of the users."""
    other = [number for number, one in enumerate(cases) if (one.user_id in halves) != half]
    means = {weight: gains([places[number] for number in other])[0].mean() for weight, places in served.items()}
    return max(means, key=lambda weight: float(means[weight]))


def report(cases: Sequence[Answered], odds: float | None = None) -> dict[str, Any]:
    found = ranked(cases, odds)
    base, reciprocal = gains(found["the ranking"][0])
    lines = {}
    for way, (places, weights) in found.items():
        ndcg, mrr = gains(places)
        lines[way] = {
            "ndcg@10": by_users(cases, ndcg),
            "mrr": by_users(cases, mrr),
            "more ndcg@10": by_users(cases, ndcg - base),
            "more mrr": by_users(cases, mrr - reciprocal),
            "weights": [[round(float(value), 3) for value in one] for one in weights],
        }
    seconds = np.array([one.seconds for one in cases])
    return {
        "cases": len(cases),
        "users": len({one.user_id for one in cases}),
        "among the candidates": float(np.mean([one.target in one.candidates for one in cases])),
        "named": float(np.mean([one.named == one.target for one in cases])),
        "seconds, median": {"next": float(np.median(seconds[:, 0])), "fit": float(np.median(seconds[:, 1]))},
        "asked below a chance": {
            sure: float(np.mean([not is_sure(one.judged, sure) for one in cases])) for sure in TRIED
        },
        "odds learnt": round(learnt_odds(cases), 2),
        "ways": lines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--adapter", default="default", help="a set, or none")
    parser.add_argument("--part", default="test", choices=["test", "valid"], help="valid: to choose a weight by")
    parser.add_argument("--cases", type=int, default=400, help="of whole users; 0: all")
    parser.add_argument("--odds", type=float, help="those that the validation cases taught, to be measured")
    parser.add_argument("--keep", type=Path, default=Path("worth"), help="what was asked is kept there")
    asked = parser.parse_args()
    params, before = load_params(asked.folder), os.getloadavg()[0]
    split = split_folder(params, asked.folder)
    cases = sample(read_cases(split, asked.part), asked.cases, seed=7)
    base = find_llm()
    one = find_set(asked.adapter) if asked.adapter != "none" else None
    llm = LocalLLM(base, {name: str(folder) for name, folder in one.adapters.items()} if one else None)
    label = one.label.replace("/", "-") if one else "none"
    asked.keep.mkdir(parents=True, exist_ok=True)
    kept = asked.keep / f"{label}{'-valid' if asked.part == 'valid' else ''}.jsonl"
    known = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    if known and "chance" not in json.loads(known[0]):
        parser.error(f"{kept} was asked by an older version, which did not keep the chance of the first: delete it")
    with (
        snapshot.open_folder(asked.folder / "data" / "prepare" / "all") as store,
        snapshot.open_folder(split / "train") as train,
        kept.open("a", encoding="utf-8") as file,
    ):
        encoder = read_queries(asked.folder, train)
        served = Served.of(train, encoder, asked.folder)
        writer = Writer(store, encoder, chat_of(base), Settings(wording=params["examples"]["wording"]), 1, 7)
        for found in ask(cases[len(known) :], writer, served, llm, one.names if one else {}):
            file.write(json.dumps(asdict(found)) + "\n")
            file.flush()
    answered = [Answered(**json.loads(line)) for line in kept.read_text(encoding="utf-8").splitlines()]
    facts = {"version": __version__, "machine": machine(), "load": [round(before, 1), round(os.getloadavg()[0], 1)]}
    told = {"date": str(date.today()), "command": f"python {' '.join(sys.argv)}", "adapter": label}
    print(json.dumps({**facts, **told, **report(answered[: len(cases)], asked.odds)}))


if __name__ == "__main__":
    main()
