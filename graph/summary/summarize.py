"""The `summarize` subgraph: a history becomes one preference summary, block by block (T 4.1, 4.2).

Recurrent: a node that loops on itself, previous summary + next block. Hierarchical: `Send` fans the blocks out, then
summaries are merged `merge` at a time in as many levels as needed. Blocks and groups are counted from the start of the
history and every summary is known by a hash of what it was made from, so a new event costs one block (recurrent), or
one block and one merge a level (hierarchical). Of a history that goes on and on the newest part is summarised
(`window`). This file reads the cache through `lookup` and never writes: what was made is returned under `made`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from typing import Annotated, Any, TypedDict, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, Send

from recgraph.errors import LLMTimeout, LLMUnavailable
from recgraph.graph.budget import LeftOut, Part, Planner, TimeBudget
from recgraph.graph.prompts import event_text
from recgraph.graph.state import RunContext, merge
from recgraph.graph.summary.blocks import split_blocks, window
from recgraph.graph.summary.summarizers import VERSION, Summarizer, Work, profile_of
from recgraph.store.records import Event, Item, Summary
from recgraph.tools.llm.protocol import Usage


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:32]


class _Piece(TypedDict, total=False):
    """What `Send` hands to one `write` node."""

    work: Work
    input_hash: str
    items: Mapping[str, Item]


class _Inside(TypedDict, total=False):
    """The subgraph's own state: what it is given, what it finds, and the summaries by "level:index" on the way."""

    user_id: str
    paradigm: str
    history: Sequence[Event]
    items: Mapping[str, Item]
    summary: Summary | None
    hashes: Sequence[str]
    done: int
    level: int
    nodes: Annotated[Mapping[str, Summary], merge]
    blocks: int
    cached_blocks: int
    made: Annotated[list[Summary], lambda left, right: left + right]
    tokens: Annotated[Usage, lambda left, right: left + right]
    degraded: Annotated[list[str], lambda left, right: left + right]
    left_out: Annotated[list[LeftOut], lambda left, right: left + right]


class _Input(TypedDict, total=False):
    user_id: str
    paradigm: str
    history: Sequence[Event]
    items: Mapping[str, Item]


class _Output(TypedDict, total=False):
    summary: Summary | None
    blocks: int
    cached_blocks: int
    made: list[Summary]
    tokens: Usage
    degraded: list[str]
    left_out: list[LeftOut]


class _Nodes:
    """The subgraph's nodes over one summarizer and one cache."""

    def __init__(
        self,
        summarizer: Summarizer,
        lookup: Callable[[str], Summary | None],
        size: int,
        group: int,
        planner: Planner,
        after: Mapping[Part, int],
    ) -> None:
        self.summarizer, self.lookup, self.size, self.group = summarizer, lookup, size, group
        self.planner, self.after = planner, after

    def _chain(self, state: _Inside, history: Sequence[Event]) -> list[str]:
        """Hash of each block; in the recurrent paradigm of everything up to and including it."""
        hashes: list[str] = []
        for block in split_blocks(history, self.size):
            lines = [[event.seq, event_text(event, state["items"])] for event in block]
            before = hashes[-1] if hashes and state["paradigm"] == "recurrent" else ""
            hashes.append(_hash(self.summarizer.name, VERSION, state["paradigm"], state["user_id"], before, lines))
        return hashes

    def plan(self, state: _Inside, runtime: Runtime[RunContext]) -> _Inside:
        """Looks up what is already known, and whether the time suffices for what is missing. Where it does not, what is
        known serves: an older summary of the recurrent loop, else a counted one."""
        found = self._looked_up(state)
        missing = 0 if self.summarizer.whole else found["blocks"] - found["cached_blocks"]
        kept, left_out = self.planner.choose("summarize", missing, RunContext.of(runtime).deadline, self.after)
        if left_out is None or kept == missing:
            return found
        summary = found["summary"] or profile_of(state["user_id"], state["paradigm"], found["history"], state["items"])
        return {**found, "summary": summary, "done": found["blocks"], "left_out": [left_out]}

    def _looked_up(self, state: _Inside) -> _Inside:
        """The longest known chain (recurrent) or each known block (hierarchical)."""
        begin, former = window(state["history"])
        history = state["history"][begin:]
        hashes = self._chain(state, history)
        found: _Inside = {
            "history": history,
            "hashes": hashes,
            "blocks": len(hashes),
            "done": 0,
            "level": 0,
            "summary": None,
            "cached_blocks": 0,
        }
        if self.summarizer.whole and hashes:
            summary = self.lookup(self._whole_hash(state, hashes))
            return {**found, "summary": summary, "cached_blocks": len(hashes) if summary else 0}
        if state["paradigm"] == "recurrent":
            return {**found, **self._known(state, hashes, begin, former)}
        known = {f"0:{i}": summary for i, key in enumerate(hashes) if (summary := self.lookup(key)) is not None}
        return {**found, "nodes": known, "cached_blocks": len(known)}

    def route(self, state: _Inside) -> str | list[Send]:
        """What comes next: the loop, the fan-out of this level's missing summaries, the next level, or the end."""
        if state["blocks"] == 0 or (state.get("summary") is not None and state["paradigm"] == "hierarchical"):
            return END
        if self.summarizer.whole:
            return END if state.get("summary") is not None else "count"
        if state["paradigm"] == "recurrent":
            return "step" if state["done"] < state["blocks"] else END
        missing = self._missing_blocks(state) if state["level"] == 0 else self._missing_groups(state)
        return [Send("write", piece) for piece in missing] or "gather"

    def _known(self, state: _Inside, hashes: Sequence[str], begin: int, former: Sequence[int]) -> _Inside:
        """The longest chain the cache has: from the beginning, or else from a former one. The block in which that one's
        last ends is read once more."""
        for index in range(len(hashes), 0, -1):
            if (summary := self.lookup(hashes[index - 1])) is not None:
                return {"done": index, "summary": summary, "cached_blocks": index}
        ends = self._ends(state["history"], begin)
        for start in former:
            chain = self._chain(state, state["history"][start:])
            for place, key in reversed(list(zip(self._ends(state["history"], start), chain, strict=True))):
                done = sum(end <= place for end in ends)
                if done and (summary := self.lookup(key)) is not None:
                    return {"done": done, "summary": summary, "cached_blocks": done}
        return {}

    def _ends(self, history: Sequence[Event], begin: int) -> list[int]:
        """Behind which places of a history the blocks from `begin` on end."""
        return list(accumulate(map(len, split_blocks(history[begin:], self.size)), initial=begin))[1:]

    def _whole_hash(self, state: _Inside, hashes: Sequence[str]) -> str:
        """The key under which the last summary stands where all are made one by one."""
        keys = list(hashes)
        while state["paradigm"] == "hierarchical" and len(keys) > 1:
            groups = [keys[i : i + self.group] for i in range(0, len(keys), self.group)]
            keys = [self._merge_hash(state, group) if len(group) > 1 else group[0] for group in groups]
        return keys[-1]

    def count(self, state: _Inside, runtime: Runtime[RunContext]) -> _Inside:
        """The one summary of a summarizer that needs no others."""
        blocks, history = split_blocks(state["history"], self.size), state["history"]
        recurrent, last = state["paradigm"] == "recurrent", len(blocks) - 1
        level = 0 if recurrent or not last else 1
        while not recurrent and self.group**level <= last:
            level += 1
        new = blocks[-1] if recurrent or not last else ()
        work = Work("all", state["user_id"], state["paradigm"], level, last if recurrent else 0, history, new, ())
        piece: _Piece = {"work": work, "input_hash": self._whole_hash(state, state["hashes"]), "items": state["items"]}
        update = self._write(piece, runtime)
        return {**update, "summary": update["made"][0]}

    def step(self, state: _Inside, runtime: Runtime[RunContext]) -> _Inside:
        """One turn of the recurrent loop. Where half of the time is over, or all of it, what is there is enough: the
        next request goes on from it."""
        done, blocks = state["done"], split_blocks(state["history"], self.size)
        covered = [event for block in blocks[: done + 1] for event in block]
        previous = state.get("summary")
        parts = (previous,) if previous is not None else ()
        work = Work(f"block {done + 1}", state["user_id"], "recurrent", 0, done, covered, blocks[done], parts)
        half = RunContext.of(runtime).ready_by
        late = f"summarize: the time sufficed for {done} of {len(blocks)} blocks; the next request goes on from there"
        if previous is not None and half is not None and time.monotonic() >= half:
            return {"done": len(blocks), "degraded": [late]}
        try:
            update = self._write({"work": work, "input_hash": state["hashes"][done], "items": state["items"]}, runtime)
        except LLMTimeout:
            if previous is None:
                raise
            return {"done": len(blocks), "degraded": [late]}
        return {**update, "summary": update["made"][0], "done": done + 1}

    def write(self, piece: _Piece, runtime: Runtime[RunContext]) -> _Inside:
        """One block or one merge of the hierarchical paradigm."""
        update = self._write(piece, runtime)
        return {**update, "nodes": {f"{piece['work'].level}:{piece['work'].block}": update["made"][0]}}

    def gather(self, state: _Inside) -> _Inside:
        """This level is whole: ends at a single summary, else opens the next level with what the cache has of it."""
        level = state["level"]
        width = self._width(state, level)
        if width == 1:
            return {"summary": state["nodes"][f"{level}:0"]}
        opened: dict[str, Summary] = {}
        for index, parts in enumerate(self._groups(state, level + 1)):
            known = parts[0] if len(parts) == 1 else self.lookup(self._group_hash(state, parts))
            if known is not None:
                opened[f"{level + 1}:{index}"] = known
        return {"level": level + 1, "nodes": opened}

    def _width(self, state: _Inside, level: int) -> int:
        width = state["blocks"]
        for _ in range(level):
            width = -(-width // self.group)
        return width

    def _groups(self, state: _Inside, level: int) -> list[list[Summary]]:
        below = [state["nodes"][f"{level - 1}:{i}"] for i in range(self._width(state, level - 1))]
        return [below[i : i + self.group] for i in range(0, len(below), self.group)]

    def _group_hash(self, state: _Inside, parts: Sequence[Summary]) -> str:
        return self._merge_hash(state, [part.input_hash for part in parts])

    def _merge_hash(self, state: _Inside, keys: Sequence[str]) -> str:
        return _hash(self.summarizer.name, VERSION, "merge", state["user_id"], list(keys))

    def _missing_blocks(self, state: _Inside) -> list[_Piece]:
        pieces: list[_Piece] = []
        for index, block in enumerate(split_blocks(state["history"], self.size)):
            if f"0:{index}" not in state.get("nodes", {}):
                work = Work(f"block {index + 1}", state["user_id"], "hierarchical", 0, index, block, block, ())
                pieces.append({"work": work, "input_hash": state["hashes"][index], "items": state["items"]})
        return pieces

    def _missing_groups(self, state: _Inside) -> list[_Piece]:
        level, by_seq = state["level"], {event.seq: event for event in state["history"]}
        pieces: list[_Piece] = []
        for index, parts in enumerate(self._groups(state, level)):
            if f"{level}:{index}" not in state["nodes"]:
                seqs = {seq for part in parts for seq in part.event_seqs}
                covered = [event for seq, event in by_seq.items() if seq in seqs]
                work = Work(
                    f"merge {index + 1} of level {level}",
                    state["user_id"],
                    "hierarchical",
                    level,
                    index,
                    covered,
                    (),
                    parts,
                )
                pieces.append({"work": work, "input_hash": self._group_hash(state, parts), "items": state["items"]})
        return pieces

    def _write(self, piece: _Piece, runtime: Runtime[RunContext]) -> _Inside:
        work = piece["work"]
        counted: AbstractContextManager[object] = nullcontext()  # without a model, in no time
        with counted if self.summarizer.whole else self.planner.timed("summarize", 1):
            written = self.summarizer.write(work, piece["items"], RunContext.of(runtime).deadline)
        summary = Summary(
            input_hash=piece["input_hash"],
            user_id=work.user_id,
            paradigm=work.paradigm,
            level=work.level,
            block=work.block,
            upto_seq=max(event.seq for event in work.covered),
            sentences=written.sentences,
            event_seqs=tuple(sorted(event.seq for event in work.covered)),
            model=written.model,
            prompt_version=VERSION,
        )
        return {"made": [summary], "tokens": written.usage, "degraded": list(written.notes)}


def build_summarize(
    summarizer: Summarizer,
    lookup: Callable[[str], Summary | None],
    *,
    block: int = 5,
    group: int = 4,
    planner: Planner | None = None,
    after: Mapping[Part, int] | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compiles the subgraph. `block` items a block, `group` summaries a merge; `lookup` finds a cached summary by its
    input hash; `planner` says whether new ones fit into the time beside what comes `after`.

    Reads `user_id, paradigm, history, items`; returns `summary` (None without history), `blocks`, `cached_blocks`,
    `made`, `tokens`, `degraded`, `left_out`. An unreachable LLM is asked once more, then the error goes up to the
    graph's fallback.
    """
    nodes = _Nodes(summarizer, lookup, block, group, planner or TimeBudget(), after or {})
    retry = RetryPolicy(initial_interval=0.2, max_attempts=2, jitter=False, retry_on=LLMUnavailable)
    graph = StateGraph(
        cast(Any, _Inside), context_schema=RunContext, input_schema=cast(Any, _Input), output_schema=cast(Any, _Output)
    )
    graph.add_node("plan", nodes.plan)
    graph.add_node("count", nodes.count)
    graph.add_node("step", nodes.step, retry_policy=retry)
    graph.add_node("write", cast(Any, nodes.write), retry_policy=retry)
    graph.add_node("gather", nodes.gather)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", nodes.route, ["count", "step", "write", "gather", END])
    graph.add_edge("count", END)
    graph.add_conditional_edges("step", nodes.route, ["step", END])
    graph.add_edge("write", "gather")
    graph.add_conditional_edges("gather", nodes.route, ["write", "gather", END])
    return graph.compile()
