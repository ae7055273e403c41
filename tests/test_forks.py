"""Worker processes that are forked while stores and recommenders are open: prefork servers, multiprocessing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS

from recgraph.store.db import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
# Each part in a process of its own: what a child leaves behind shows in how it ends, and what hangs is killed.
BEGIN = """
import os, signal, sys
from recgraph.errors import StoreError
from recgraph.graph.recommender import Recommender
from recgraph.store.db import Store
from recgraph.store.runs import RunLog

def in_children(work, number=2):
    children = []
    for _ in range(number):
        child = os.fork()
        if not child:
            signal.alarm(60)
            work()
            sys.stdout.flush()
            sys.exit(0)  # as a worker of a server ends: all that Python and DuckDB hold is taken down
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

path = sys.argv[1]
"""


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    store = make_store(SHOP_ITEMS, SHOP_EVENTS, SHOP_EXPOSURES)
    store.close()
    return store.path


def told(program: str, shop: Path) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", BEGIN + program, str(shop)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_forked_child_opens_the_store_for_itself_and_ends(shop: Path) -> None:
    """Forked workers ended by SIGABRT, or never: DuckDB waited for threads that stayed in the parent."""
    program = """
store = Store.open(path)
print(store.counts()["events"], flush=True)
def work():
    print(store.counts()["events"])
    with Store.open(path) as own:
        print(own.counts()["events"])
    store.close()
print(in_children(work, 1) + in_children(work, 1), store.counts()["events"])
"""
    assert told(program, shop) == ["12"] * 5 + ["[0, 0] 12"]


def test_a_child_reads_while_the_parent_does_and_each_writes_its_own(shop: Path) -> None:
    program = """
import threading
store = Store.open(path)
over = threading.Event()
def read():
    while not over.is_set():
        store.counts()
threads = [threading.Thread(target=read) for _ in range(2)]
for thread in threads:
    thread.start()
def work():
    assert store.counts()["events"] == 12
codes = [code for _ in range(5) for code in in_children(work)]
over.set()
for thread in threads:
    thread.join()
print(codes)
def write():
    store.set_meta(f"child-{os.getpid()}", "x")
store.set_meta("parent", "x")
print(in_children(write))
store.set_meta("parent", "y")
print(store.meta("parent"))
"""
    assert told(program, shop) == [str([0] * 10), "[0, 0]", "y"]


def test_a_store_that_is_written_when_a_process_forks_is_the_parents_and_the_child_says_so(shop: Path) -> None:
    program = """
store = Store.open(path, write=True)
def work():
    for attempt in (store.counts, lambda: Store.open(path)):
        try:
            attempt()
        except StoreError as error:
            print(str(error).removeprefix(path))
    store.close()
print(in_children(work, 1), flush=True)
store.set_meta("x", "y")
print(store.meta("x"))
"""
    sentence = (
        " was being written, or read, when this process was forked from another one, and stays open there: "
        "close it before the fork, or open it only afterwards, in each process."
    )
    assert told(program, shop) == [sentence, sentence, "[0]", "y"]


def test_forked_workers_recommend_as_their_parent_does_and_log_what_they_answered(shop: Path) -> None:
    """With the real encoder, whose threads do not come along either."""
    program = """
recommender = Recommender.open(path, llm="none")
answer = lambda: [line.item.item_id for line in recommender.recommend("U1", "linen shirt").items]
first = answer()
def work():
    assert answer() == first
    recommender.close()
print(in_children(work, 3))
assert answer() == first
recommender.close()
print(len(RunLog(path).recent()))
"""
    assert told(program, shop) == ["[0, 0, 0]", "5"]


@pytest.mark.llm
def test_forked_workers_ask_the_model_in_process(shop: Path) -> None:
    program = """
recommender = Recommender.open(path, llm="default", candidates=3, deadline=120.0)
recommender.recommend("U1")  # what is read once is gone on from, and a number that is rounded otherwise may name another
first = recommender.recommend("U1")
def work():
    found = recommender.recommend("U1")
    assert found.prediction == first.prediction and not found.degraded, found
    recommender.close()
print(in_children(work, 1))
recommender.close()
"""
    assert told(program, shop) == ["[0]"]
