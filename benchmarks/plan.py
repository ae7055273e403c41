"""A plan on paper: bytes, hours, machines and prices of a shop of so many users and products, from what one of each
costs here (units.toml; docs/scale.md says what is measured, computed and only assumed).

    python benchmarks/plan.py                                        the table from 100,000 to 100 million
    python benchmarks/plan.py --users 3e6 --items 5e5 --set events_per_user=120 --set llm_share=1
    python benchmarks/plan.py --units                                where each figure comes from
    python benchmarks/plan.py --check [--demo FILE]                  the formulae against what was and is measured

`--check` ends with 1 where a formula is more than a fifth away from what it is held against. Seconds measured now are
of the processor, and by the yardstick of now (units.py), for a busy machine does less a second.
"""

from __future__ import annotations

import argparse
import math
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

FIGURES = Path(__file__).with_name("units.toml")
SIZES = (1e5, 1e6, 1e7, 1e8)
WITHIN = 0.2
Units = Mapping[str, float]
HOURS_A_MONTH, DAY = 730.0, 86_400.0


@dataclass(frozen=True)
class Plan:
    """What a shop of these sizes takes; `u` are the unit figures. Seconds are of one core."""

    u: Units
    users: float
    items: float
    kept_events: float | None = None  # events_per_user of each, where it is not given

    @property
    def events(self) -> float:
        return self.users * self.u["events_per_user"] if self.kept_events is None else self.kept_events

    # ── Loading and building ──

    @property
    def ingest_seconds(self) -> float:
        return self.events * self.u["event_ingest_seconds"] + self.items * self.u["item_ingest_seconds"]

    @property
    def store_bytes(self) -> float:
        """With the summaries of all users."""
        of_tables = self.events * self.u["event_store_bytes"] + self.items * self.u["item_store_bytes"]
        return of_tables + self.users * self.u["summary_bytes"]

    @property
    def snapshot_seconds(self) -> float:
        return self.events * self.u["event_snapshot_seconds"] + self.items * self.u["item_snapshot_seconds"]

    @property
    def snapshot_bytes(self) -> float:
        return self.events * self.u["event_snapshot_bytes"] + self.items * self.u["item_snapshot_bytes"]

    @property
    def titles_seconds(self) -> float:
        return self.items * self.u["title_seconds"]

    @property
    def index_seconds(self) -> float:
        return self.items * self.u["build_seconds"]

    @property
    def index_bytes(self) -> float:
        return self.items * self.u["index_bytes"]

    @property
    def training_seconds(self) -> float:
        """CORE, the text transformer and one adapter."""
        learnt_from = min(self.events, self.u["most_trained_events"])
        networks = learnt_from * (self.u["core_event_seconds"] + self.u["former_event_seconds"])
        return networks + 2 * self.u["adapter_tokens"] * self.u["adapter_token_seconds"]

    # ── Answering ──

    @property
    def retrieval_seconds(self) -> float:
        return self.u["retrieval_base"] + self.u["retrieval_root"] * math.sqrt(self.items)

    @property
    def answer_seconds(self) -> float:
        """Without a language model: what was measured on a small shop, and what more products add."""
        return self.u["answer_seconds"] + self._more_retrieval

    @property
    def batch_seconds(self) -> float:
        """A day's: those with a new event."""
        return self.users * self.u["active_share"] * (self.u["batch_user_seconds"] + self._more_retrieval)

    @property
    def _more_retrieval(self) -> float:
        return self.retrieval_seconds - Plan(self.u, 0, self.u["answer_products"]).retrieval_seconds

    @property
    def answers_a_second(self) -> float:
        return self.users * self.u["asks_per_user"] / DAY * self.u["peak"]

    @property
    def serving_cores(self) -> float:
        events = self.users * self.u["new_events_per_user"] / DAY * self.u["peak"] * self.u["record_seconds"]
        return (self.answers_a_second * self.answer_seconds + events) / self.u["used"]

    @property
    def resident_bytes(self) -> float:
        """Of one process."""
        return self._own + self._mapped

    @property
    def _own(self) -> float:
        return self.u["own_base_bytes"] + self.items * self.u["own_item_bytes"]

    @property
    def _mapped(self) -> float:
        return self.u["mapped_base_bytes"] + self.items * self.u["mapped_item_bytes"]

    @property
    def memory_bytes(self) -> float:
        """Of a serving machine: a process for two cores (own), all over what is mapped once."""
        return self._own * self.u["cores"] / 2 + self._mapped

    @property
    def serving_machines(self) -> int:
        """By cores; two at least, so that one may fail."""
        return max(2, math.ceil(self.serving_cores / self.u["cores"]))

    @property
    def memory_machines(self) -> int:
        """How many machines' memory each of them takes: larger ones of a family cost in proportion."""
        return math.ceil(self.memory_bytes / self.u["memory_bytes"])

    @property
    def log_bytes(self) -> float:
        return self.users * self.u["asks_per_user"] * self.u["log_days"] * self.u["run_bytes"]

    @property
    def cards(self) -> int:
        return math.ceil(self.answers_a_second * self.u["llm_share"] * self.u["card_seconds"] / self.u["used"])

    # ── Money ──

    @property
    def daily_seconds(self) -> float:
        """The batch, the changed titles, and a build and a snapshot of everything."""
        again = self.index_seconds + self.snapshot_seconds
        return self.batch_seconds + self.titles_seconds * self.u["title_changes"] + again

    @property
    def daily_machines(self) -> int:
        """So many for the hours of the window."""
        return math.ceil(self.daily_seconds / (self.u["window_hours"] * 3600 * self.u["cores"]))

    @property
    def once_dollars(self) -> float:
        """Loading all, embedding and indexing it, training once."""
        return self._dollars(self.ingest_seconds + self.titles_seconds + self.index_seconds + self.training_seconds)

    @property
    def month_dollars(self) -> float:
        """Serving all day, the daily work, storage, cards, and training once a month."""
        serving = self.serving_machines * self.memory_machines * self.u["machine_hour"] * HOURS_A_MONTH
        work = self._dollars(30 * self.daily_seconds + self.training_seconds)
        disks = (self.store_bytes + self.log_bytes + self.index_bytes * self.serving_machines) / 1e9
        storage = disks * self.u["disk_gb_month"] + 7 * self.snapshot_bytes / 1e9 * self.u["object_gb_month"]
        return serving + work + storage + self.cards * self.u["card_hour"] * HOURS_A_MONTH

    def _dollars(self, seconds: float) -> float:
        return seconds / 3600 / self.u["cores"] * self.u["machine_hour"]


# ── The table ─────────────────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = (
    ("store", lambda p: _size(p.store_bytes)),
    ("snapshot", lambda p: _size(p.snapshot_bytes)),
    ("index", lambda p: _size(p.index_bytes)),
    ("run log", lambda p: _size(p.log_bytes)),
    ("ingest", lambda p: _time(p.ingest_seconds)),
    ("titles", lambda p: _time(p.titles_seconds)),
    ("build", lambda p: _time(p.index_seconds)),
    ("training", lambda p: _time(p.training_seconds)),
    ("batch a day", lambda p: _time(p.batch_seconds)),
    ("machines at night", lambda p: f"{p.daily_machines:,}"),
    ("answer", lambda p: f"{p.answer_seconds * 1000:.0f} ms"),
    ("answers/s", lambda p: f"{p.answers_a_second:,.0f}"),
    ("serving", lambda p: f"{p.serving_machines:,} × {_size(p.memory_bytes)}"),
    ("once", lambda p: f"${p.once_dollars:,.0f}"),
    ("a month", lambda p: f"${p.month_dollars:,.0f}"),
)


def _size(count: float) -> str:
    unit, name = next((one for one in ((1e12, "TB"), (1e9, "GB")) if count >= one[0]), (1e6, "MB"))
    return f"{count / unit:,.3g} {name}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.3g} h" if seconds >= 3600 else f"{seconds:,.0f} s"


def table(plans: Iterator[Plan]) -> Iterator[str]:
    """As Markdown; hours are of one core."""
    yield "| users | products | " + " | ".join(name for name, _ in COLUMNS) + " |"
    yield "|" + "---|" * (len(COLUMNS) + 2)
    for plan in plans:
        yield f"| {plan.users:,.0f} | {plan.items:,.0f} | " + " | ".join(tell(plan) for _, tell in COLUMNS) + " |"


def read_figures(changed: Mapping[str, float]) -> tuple[dict[str, Any], Units]:
    """The file, and its units with what is changed. SystemExit for a name that there is not."""
    told = tomllib.loads(FIGURES.read_text(encoding="utf-8"))
    if unknown := sorted(set(changed) - set(told["units"])):
        raise SystemExit(f"units.toml has no '{unknown[0]}'; it has {', '.join(told['units'])}.")
    return told, {**{name: float(one["value"]) for name, one in told["units"].items()}, **changed}


# ── Held against what is measured ─────────────────────────────────────────────────────────────────────────────────────


def recorded(told: Mapping[str, Any], units: Units) -> Iterator[tuple[str, float, float]]:
    """What was measured whole, by the formula and as measured."""
    for point in told["points"]:
        plan = Plan(units, point.get("users", 0), point["items"], point.get("events", 0))
        yield point["what"], float(getattr(plan, point["figure"])), float(point["value"])


def remeasured(units: Units, demo: Path | None) -> Iterator[tuple[str, float, float]]:
    """Sizes between those that the figures come from, measured now."""
    from units import SMALL, measured

    for probe, sizes in SMALL.items():
        if probe == "answers" and demo is None:
            continue
        found = measured(probe, sizes, demo)
        slower = found["yardstick"] / units["yardstick"]
        plan = Plan(units, 0, sizes[-1], sizes[0] if probe == "tables" else 0)
        for name, value in found.items():
            at = f"{probe} of {', '.join(f'{one:,}' for one in sizes)}: {name}"
            if hasattr(Plan, name) and probe not in ("index", "answers"):
                yield at, float(getattr(plan, name)), value / (slower if name.endswith("seconds") else 1)
            elif name in units and name != "yardstick":
                yield at, units[name], value / (slower if name.endswith("seconds") else 1)


def check(told: Mapping[str, Any], units: Units, demo: Path | None) -> int:
    """Prints each point; how many are more than a fifth away."""
    far = 0
    for title, points in (("measured before", recorded(told, units)), ("measured now", remeasured(units, demo))):
        print(f"{title:<88} formula    measured    away")
        for what, by_formula, value in points:
            away = by_formula / value - 1
            far += abs(away) > WITHIN
            print(f"  {what:<84} {by_formula:>9.4g}   {value:>9.4g}   {away:+.0%}", flush=True)
    return far


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--users", type=float, nargs="+", default=SIZES)
    parser.add_argument("--items", type=float, nargs="+", default=SIZES)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="another figure of units.toml"
    )
    parser.add_argument("--units", action="store_true", help="where each figure comes from")
    parser.add_argument("--check", action="store_true", help="hold the formulae against what is measured")
    parser.add_argument("--demo", type=Path, help="a store of `recgraph demo`, whose answers are measured too")
    options = parser.parse_args()
    pairs = [one.partition("=") for one in options.set]
    told, units = read_figures({name: float(value) for name, _, value in pairs})
    if options.units:
        for name, one in told["units"].items():
            source = told["sources"][one["source"]]
            print(
                f"{name} = {units[name]:g}: {one['what']}\n    {source['kind']}, {source['date']}: {source['command']}"
            )
    elif options.check:
        far = check(told, units, options.demo)
        print(f"{far} points are more than {WITHIN:.0%} away" if far else f"all points are within {WITHIN:.0%}")
        sys.exit(far > 0)
    else:
        print(*table(Plan(units, users, items) for users in options.users for items in options.items), sep="\n")


if __name__ == "__main__":
    main()
