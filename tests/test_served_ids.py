"""Answers held to the ids of a catalogue inside vLLM: the trie of their tokens, its file, and the processor of both
runners, without vLLM. The real server is in test_vllm.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs recgraph[local]")

import torch

from recgraph.errors import SettingsError
from recgraph.llm import vllm_ids
from recgraph.llm.catalogue import answer_rows, write_trie
from recgraph.llm.command import _holding
from recgraph.llm.launch import VLLM, Launch, holding
from recgraph.settings import Settings
from recgraph.store.db import Store
from recgraph.tools.llm.served_ids import HOLD, names_ids, served_ids

# A tokenizer of single characters, and of one pair that melts: "AB" is a token of its own.
PIECES = ["<end>", "\n", "\n\n", " ", ":", "AB", *"ABCDITabcdeilt123"]
END, LINE_ENDS = 0, (1, 2)
IDS = ("A", "AB", "ABC", "AC1", "B 2", "C")


def encode(texts: Sequence[str]) -> list[list[int]]:
    found = []
    for text in texts:
        tokens = []
        while text:
            piece = max((one for one in PIECES[1:] if text.startswith(one)), key=len)
            tokens.append(PIECES.index(piece))
            text = text[len(piece) :]
        found.append(tokens)
    return found


def decode(tokens: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


@pytest.fixture
def trie(tmp_path: Path) -> vllm_ids.IdTrie:
    file = tmp_path / vllm_ids.TRIE
    write_trie(file, answer_rows(encode, END, encode(["ID:"])[0], IDS), LINE_ENDS, [END])
    return vllm_ids.IdTrie(file)


def every_path(trie: vllm_ids.IdTrie, node: int = 0, before: tuple[int, ...] = ()) -> list[str]:
    options = trie.after(node).tolist()
    if not options:
        return [decode(before)]
    return [path for token in options for path in every_path(trie, trie.step(node, token), (*before, token))]


def test_the_paths_of_the_trie_are_the_answers_of_the_ids_and_no_others(trie: vllm_ids.IdTrie) -> None:
    assert sorted(every_path(trie)) == sorted(f"ID: {one}\nTitle:" for one in IDS)


def test_an_id_that_begins_another_ends_at_its_line(trie: vllm_ids.IdTrie) -> None:
    node = 0
    for token in encode(["ID: AB"])[0]:
        node = trie.step(node, token)
    assert {PIECES[token] for token in trie.after(node).tolist()} == {"\n", "C"}


def test_a_token_that_leads_nowhere_holds_nothing_any_more(trie: vllm_ids.IdTrie) -> None:
    off = trie.step(0, PIECES.index("T"))
    assert trie.step(off, PIECES.index("I")) == off
    row = torch.zeros(len(PIECES))
    trie.hold(row, off)
    assert not row.any()


def test_many_ids_are_all_found_again(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    ids = sorted({"".join(random.choice(list("ABC123"), random.integers(1, 9))) for _ in range(3000)})
    file = tmp_path / "many"
    write_trie(file, answer_rows(encode, END, encode(["ID:"])[0], ids), LINE_ENDS, [END])
    assert sorted(every_path(vllm_ids.IdTrie(file))) == sorted(f"ID: {one}\nTitle:" for one in ids)
    assert file.stat().st_size < 3000 * 14 * 8


def test_a_file_of_another_version_is_refused(trie: vllm_ids.IdTrie, tmp_path: Path) -> None:
    for numbers in ([1, 0, 0, 0, 0], [vllm_ids.FORMAT, 1, 0, 0, 0]):
        file = tmp_path / "other"
        file.write_bytes(np.array(numbers, dtype=np.int32).tobytes())
        with pytest.raises(ValueError, match="recgraph llm serve"):
            vllm_ids.IdTrie(file)


# ── The processor ─────────────────────────────────────────────────────────────────────────────────────────────────────


def params(**extra: Any) -> Any:
    return SimpleNamespace(extra_args=extra or None)


def wishes(*pieces: str) -> Any:
    """Logits that like these pieces best, in order."""
    row = torch.zeros(len(PIECES))
    for place, piece in enumerate(pieces):
        row[PIECES.index(piece)] = 9.0 - place
    return row


class Second:
    """What the second runner shows a processor: slots of tokens, of which the batch is rows in any order."""

    def __init__(self, slots: int) -> None:
        self.tokens = torch.zeros((slots, 64), dtype=torch.int32)
        self.prompts, self.lengths = np.zeros(slots, dtype=np.int32), np.zeros(slots, dtype=np.int32)
        self.states = SimpleNamespace(
            all_token_ids=SimpleNamespace(gpu=self.tokens), prompt_len=SimpleNamespace(np=self.prompts)
        )

    def begin(self, slot: int, prompt: int) -> None:
        self.prompts[slot] = self.lengths[slot] = prompt

    def write(self, slot: int, token: int) -> None:
        self.tokens[slot, self.lengths[slot]] = token
        self.lengths[slot] += 1

    def context(self, slots: Sequence[int]) -> Any:
        return SimpleNamespace(idx_mapping_np=np.array(slots), pos=torch.tensor([self.lengths[s] - 1 for s in slots]))


@pytest.fixture
def held(trie: vllm_ids.IdTrie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(vllm_ids, "__file__", str(tmp_path / "recgraph_ids.py"))
    return vllm_ids.CatalogueIds  # type: ignore[attr-defined]


def test_the_second_runner_writes_the_best_id_in_whatever_row_and_leaves_others_alone(held: Any) -> None:
    runner = Second(4)
    processor = held(SimpleNamespace(speculative_config=None), runner.states)
    runner.begin(2, 5)
    runner.begin(1, 7)
    assert processor.add_request(2, params(recgraph_ids=1))
    assert not processor.add_request(1, params())
    for step in range(40):
        slots = [2, 1] if step % 2 else [1, 2]
        logits = torch.stack([wishes("\n", "C", "1", "a") for _ in slots])
        before = logits.clone()
        logits = processor.apply(logits, runner.context(slots))
        assert torch.equal(logits[slots.index(1)], before[slots.index(1)])
        token = int(logits[slots.index(2)].argmax())
        runner.write(2, token)
        runner.write(1, 5)
        if token == END:
            break
    text = decode(runner.tokens[2, 5 : runner.lengths[2]].tolist())
    assert text == "ID: C\nTitle:C<end>"  # a title has a token; then its line's end was liked best
    assert not processor.add_request(2, params())  # the slot is another's now
    logits = wishes("\n")[None]
    assert torch.equal(processor.apply(logits.clone(), runner.context([2])), logits)


def test_a_request_that_comes_back_with_half_an_answer_goes_on_from_there(held: Any) -> None:
    runner = Second(1)
    processor = held(SimpleNamespace(speculative_config=None), runner.states)
    runner.begin(0, 3)
    for token in encode(["ID: AC"])[0]:
        runner.write(0, token)
    processor.add_request(0, params(recgraph_ids=1))
    logits = processor.apply(wishes("\n")[None], runner.context([0]))
    assert torch.isfinite(logits[0]).nonzero().flatten().tolist() == [PIECES.index("1")]


def test_the_first_runner_reads_the_lists_it_was_given(held: Any) -> None:
    processor = held(SimpleNamespace(speculative_config=None), "cpu", False)
    logits = wishes("\n")[None]
    assert torch.equal(processor.apply(logits.clone()), logits)
    output: list[int] = []
    processor._walks[0] = (vllm_ids._Walk(), output)
    while END not in output:
        output.append(int(processor.apply(wishes("\n", "AB", "1")[None])[0].argmax()))
    assert decode(output) == "ID: AB\nTitle:AB<end>"
    assert not processor.is_argmax_invariant()


def test_another_value_than_one_is_refused_and_so_are_guessed_tokens(held: Any) -> None:
    held.validate_params(params(recgraph_ids=1))
    held.validate_params(params(other=2))
    with pytest.raises(ValueError, match="recgraph_ids is 'yes'"):
        held.validate_params(params(recgraph_ids="yes"))
    with pytest.raises(ValueError, match="guessed ahead"):
        held(SimpleNamespace(speculative_config=object()), "cpu")
    assert HOLD == {"vllm_xargs": {vllm_ids.ASKED: 1}}


# ── The server's command ──────────────────────────────────────────────────────────────────────────────────────────────


def command(held: tuple[bool, bool], *more: str) -> Launch:
    arguments = ("-m", "vllm", "--served-model-name", "small", "--port", "1", *more)
    return Launch(VLLM(Path("/python"), "vllm", "9", held), "small", "127.0.0.1", 1, arguments, {"A": "b"})


def test_the_server_is_told_of_the_catalogue_and_tells_of_it() -> None:
    name = served_ids("0123abcd", 20_000)
    assert names_ids(name)
    assert not names_ids("recgraph-ids-model")
    one = holding(command((True, True)), Path("/cache") / name, name)
    at = one.arguments.index("--served-model-name")
    assert one.arguments[at : at + 3] == ("--served-model-name", "small", name)
    assert one.arguments[-2:] == ("--logits-processors", "recgraph_ids:CatalogueIds")
    assert one.environment["PYTHONPATH"].split(":")[0] == f"/cache/{name}"
    assert "VLLM_USE_V2_MODEL_RUNNER" not in one.environment
    # a vLLM whose second runner takes none is asked to run the first
    assert holding(command((True, False)), Path("/x"), name).environment["VLLM_USE_V2_MODEL_RUNNER"] == "0"


def test_a_small_or_missing_store_leaves_the_server_as_it_is_unless_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, path = command((True, True)), tmp_path / "shop.duckdb"
    settings = Settings(store=str(path), cache=str(tmp_path))
    assert _holding(plain, tmp_path, settings, None) is plain
    assert "answers are not held to the whole catalogue: " in capsys.readouterr().out
    with pytest.raises(SettingsError, match="--catalogue cannot be had: "):
        _holding(plain, tmp_path, settings, True)
    Store.create(path).close()
    assert _holding(plain, tmp_path, settings, None) is plain  # a regular expression is enough
    assert _holding(plain, tmp_path, settings, False) is plain
    with pytest.raises(SettingsError, match="None of the catalogue's ids"):
        _holding(plain, tmp_path, settings, True)
    assert not capsys.readouterr().out


def test_a_vllm_or_an_option_that_does_not_allow_it_is_told() -> None:
    with pytest.raises(SettingsError, match="vLLM 9 takes no processors"):
        holding(command((False, False)), Path("/x"), "n")
    with pytest.raises(SettingsError, match="--speculative-config"):
        holding(command((True, True), "--speculative_config={}"), Path("/x"), "n")
