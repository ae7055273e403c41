"""The plan on paper: its table in docs/scale.md is the script's, its figures say where they come from, and its formulae
give what was measured whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from plan import SIZES, WITHIN, Plan, read_figures, recorded, table

TOLD, UNITS = read_figures({})


def test_the_table_of_the_page_is_the_scripts() -> None:
    lines = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8").splitlines()
    expected = list(table(Plan(UNITS, users, items) for users in SIZES for items in SIZES))
    at = lines.index(expected[0])
    assert lines[at : at + len(expected)] == expected


def test_the_formulae_give_what_was_measured_whole() -> None:
    points = list(recorded(TOLD, UNITS))
    assert len(points) == 8
    for what, by_formula, measured in points:
        assert abs(by_formula / measured - 1) <= WITHIN, what


def test_each_figure_says_what_it_is_and_where_it_comes_from() -> None:
    for name, one in TOLD["units"].items():
        assert one["what"], name
        source = TOLD["sources"][one["source"]]
        assert source["kind"] in ("measured", "assumed", "price"), name
        assert source["date"] and source["command"], name  # noqa: PT018
        assert (source["kind"] != "measured") or source["machine"], name


def test_twice_the_shoppers_take_twice_the_work_and_the_same_memory() -> None:
    one, two = Plan(UNITS, 1e7, 1e6), Plan(UNITS, 2e7, 1e6)
    assert two.batch_seconds == pytest.approx(2 * one.batch_seconds)
    assert two.serving_cores == pytest.approx(2 * one.serving_cores)
    assert two.memory_bytes == one.memory_bytes
    assert two.month_dollars > one.month_dollars


def test_a_figure_of_ones_own_counts_and_an_unknown_one_is_refused() -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "plan.py"), "--users", "1e6", "--items", "1e5"]
    told = [
        subprocess.run([*command, *more], capture_output=True, text=True, timeout=60)
        for more in ([], ["--set", "llm_share=1"])
    ]
    assert [one.returncode for one in told] == [0, 0]
    assert told[0].stdout != told[1].stdout
    refused = subprocess.run([*command, "--set", "lm_share=1"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "units.toml has no 'lm_share'" in refused.stderr
