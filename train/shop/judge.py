"""What can be known of the simulated shop's next purchase: a judge that has the shop's own generating model.

The year is traded again with its seed, by a trade that keeps what is hidden (`WatchedTrade`). A case is then answered
by that same code: listings in mind are drawn by how likely they are after what was visible, and from each the visit
goes on with another generator until something is taken (`Judge.chances`). No formula of the shop stands here but what
follows from its choices: who takes the largest of several worths with Gumbel noise chooses by a softmax.

Three judges, by what they know beside the shop, the catalogue, the demand and what was visible until then (with the
pages of earlier searches):

- `page`: the shopper's taste, the page of the very search, and which facts its words meant. No model can know these.
- `taste`: the taste alone.
- `history`: neither; the taste is inferred (`Tastes`). What a model can reach that reads all that the shopper did.

Nothing here knows stores, prompts or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from recgraph.train.shop.catalogue import Floats, Ints, wording_chance
from recgraph.train.shop.trade import FEATURE_WEIGHTS, NEARNESS, RANKED, Intent, Moment, Seen, Shopper, Trade, Worded
from recgraph.train.shop.year import draw_shoppers

NOUN = 5  # the code of a listing that every search names
TAKES = 8  # times that each fork decides what is taken
SMOOTHING = 0.02  # the share of a chance that is given by what was in mind: forks are few, chances are small


@dataclass(eq=False)
class Searched:
    """A search as it was, with what the shop was just then; `clicked` are the places of the page that were clicked,
    `number` counts the turns of its visit, `owned` what its shopper has bought."""

    second: int
    asked: Worded
    shown: list[int]
    intent: Intent
    at: Moment
    seen: Seen
    number: int
    owned: int
    heat: Floats | None
    today: int
    shelves: dict[tuple[str, str], Ints]
    clicked: list[int] = field(default_factory=list)

    def unanswered(self) -> Searched:
        """The same as of its own moment, before anything was clicked."""
        return replace(self, clicked=[])


@dataclass(frozen=True, eq=False)
class Purchase:
    """A purchase as it came about: the turns of the visits for the same thing, and what was seen at the till. `open` is
    the product that lay in the cart or was looked at on its page just before, -1 if none; `intent` is None for what
    came into the basket of another purchase, the last of the `owned`."""

    turns: tuple[Searched, ...]
    at: Moment
    intent: Intent | None
    seen: Seen
    owned: int
    open: int
    today: int
    shelves: dict[tuple[str, str], Ints]


class WatchedTrade(Trade):
    """A trade that notes what is hidden: `threads` are the turns for one and the same listing in mind by shopper,
    `purchases` by (second, user_id, product). The demand is noted from the day `heat_from`."""

    heat_from = 0.0

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.threads: dict[str, list[list[Searched]]] = {}
        self.purchases: dict[tuple[int, str, int], Purchase] = {}
        self._at_till: tuple[Intent, Seen, int] | None = None

    def answered(self, intent: Intent, asked: Worded, shown: list[int], at: Moment) -> None:
        threads = self.threads.setdefault(at.who.user_id, [])
        last = threads[-1][-1] if threads else None
        if last is None or (last.intent is not intent and not intent.resumed):
            threads.append([])
        number = last.number + 1 if last is not None and last.intent is intent else 0
        heat = self.heat.copy() if at.day >= self.heat_from else None
        threads[-1].append(
            Searched(
                self.clock,
                asked,
                shown,
                intent,
                at,
                dict(intent.seen),
                number,
                len(at.who.bought),
                heat,
                self.today,
                self.open_shelves,
            )
        )

    def look(self, intent: Intent, shown: list[int], query: str, at: Moment) -> None:
        start = len(self.events)
        super().look(intent, shown, query, at)
        places = [event[5] - 1 for event in self.events[start:] if event[5] is not None]
        self.threads[at.who.user_id][-1][-1].clicked = places

    def take(self, intent: Intent, at: Moment, swaps: bool) -> tuple[int, str, int | None]:
        self._at_till = intent, dict(intent.seen), len(at.who.bought)
        return super().take(intent, at, swaps)

    def decide(self, intent: Intent, at: Moment) -> bool:
        start = len(self.events)
        bought = super().decide(intent, at)
        if bought and self._at_till:
            self._note(at, *self._at_till, start)
        return bought

    def basket(self, at: Moment) -> None:
        start, owned = len(self.events), len(at.who.bought)
        super().basket(at)
        if len(self.events) > start:
            self._note(at, None, {}, owned, start)

    def _note(self, at: Moment, intent: Intent | None, seen: Seen, owned: int, start: int) -> None:
        *before, (second, user, _, product, _, _) = self.events[start:]
        threads = self.threads.get(user, [])
        mine = bool(threads) and intent is not None and (intent.resumed or threads[-1][-1].intent is intent)
        self.purchases[second, user, product] = Purchase(
            tuple(threads[-1]) if mine else (),
            at,
            intent,
            seen,
            owned,
            before[-1][3] if before else -1,
            self.today,
            self.open_shelves,
        )


def felt(at: Moment, who: Shopper | None) -> Moment:
    """The moment as it would be for a shopper of another taste; `who` None leaves it as it is."""
    if who is None:
        return at
    taste = who.taste(at.day)
    return replace(at, taste=taste, likes=at.likes + (taste - at.taste) * FEATURE_WEIGHTS)


class Judge:
    """Chances of products, from `forks` ways in which a visit may have gone on."""

    def __init__(self, trade: Trade, forks: int, seed: int) -> None:
        self.trade, self.forks = trade, forks
        self.rng = np.random.default_rng(seed)
        self._clues: dict[int, tuple[Floats, Floats]] = {}

    def chances(self, purchase: Purchase, asked: int, tastes: Sequence[Shopper | None], page: bool = False) -> Floats:
        """The chance of each product [products] to be the one bought, averaged over `tastes` (None: the true one), as
        of the search purchase.turns[asked]; of the purchase itself, where `asked` is -1. `page`: the page of that
        search is known."""
        found = np.zeros(len(self.trade.listings.products))
        if asked < 0 and purchase.open >= 0:
            found[purchase.open] = 1.0
            return found
        forks = max(1, self.forks // len(tastes))
        for who in tastes:
            if purchase.intent is None:
                found += self._beside(purchase, who, forks)
            else:
                found += self._taken(purchase, asked, who, page, forks)
        return np.asarray(found / max(found.sum(), 1e-300))

    def _beside(self, purchase: Purchase, who: Shopper | None, forks: int) -> Floats:
        """The chances of what comes into the basket beside a purchase."""
        fork, at = self._fork(purchase, who)
        counts = np.zeros(len(fork.listings.products))
        for _ in range(forks):
            intent = fork.aim(at, fork.complement(at.who.bought[-1][1], at.who))
            if intent:
                counts[fork.variant(intent.target, at.who)] += 1
        return np.asarray(counts / max(1.0, counts.sum()))

    def _taken(self, purchase: Purchase, asked: int, who: Shopper | None, page: bool, forks: int) -> Floats:
        """The chances of what is taken of all that was seen, and will be seen after a search."""
        assert purchase.intent is not None
        turn = purchase.turns[asked] if asked >= 0 else None
        noted: Searched | Purchase = turn or purchase
        intent, seen = turn.intent if turn else purchase.intent, noted.seen
        fork, at = self._fork(noted, who)
        rows, weights = self._in_mind(purchase, asked, who, page)
        counts, meant_for = np.zeros(len(fork.listings.products)), np.zeros(len(fork.listings.products))
        for row, weight in zip(rows.tolist(), weights.tolist(), strict=True):
            meant_for[fork.variant(row, at.who)] += weight
        charm = fork.charm(intent.rows, at)
        for target in self.rng.choice(rows, forks, p=weights).tolist():
            meant = fork.around(target, intent.rows, charm, charm, dict(seen))
            if turn:
                fork.heat = self.trade.heat if turn.heat is None else turn.heat.copy()
                _go_on(fork, meant, turn, at, page)
            for _ in range(TAKES if meant.seen else 0):
                taken, query, _ = fork.take(meant, at, swaps=not at.visit.wish)
                if turn is None or query == turn.asked.text:
                    counts[fork.variant(taken, at.who)] += 1
        return np.asarray((1 - SMOOTHING) * counts / max(1.0, counts.sum()) + SMOOTHING * meant_for)

    def _fork(self, noted: Searched | Purchase, who: Shopper | None) -> tuple[Trade, Moment]:
        """A shop of its own as it was, and the moment in it, which is to end in a purchase."""
        fork = Trade.__new__(Trade)
        vars(fork).update(vars(self.trade))
        fork.rng, fork.events, fork.exposures = self.rng, [], []
        fork.today, fork.open_shelves = noted.today, noted.shelves
        at = felt(noted.at, who)
        shopper = replace(at.who, bought=at.who.bought[: noted.owned])
        return fork, replace(at, who=shopper, visit=replace(at.visit, buys=True))

    def _in_mind(self, purchase: Purchase, asked: int, who: Shopper | None, page: bool) -> tuple[Ints, Floats]:
        """Listings and how likely each is the one in mind, after what was asked and clicked by then."""
        if asked >= 0:
            turns: list[Searched] = [*purchase.turns[:asked], purchase.turns[asked].unanswered()]
        else:
            turns = list(purchase.turns)
        if turns:
            rows, logs = turns[0].intent.rows, self.log_chances(turns, who)
        else:
            assert purchase.intent is not None
            rows = purchase.intent.rows
            logs = self.trade.charm(rows, felt(purchase.at, who))
        if page and asked >= 0:
            columns = [NOUN, *(column for kind, column, _ in RANKED if kind in turns[-1].asked.named)]
            meant = self.trade.same(turns[-1].intent.target, rows)[:, columns].all(axis=1)
            logs = np.where(meant, logs, -np.inf) if meant.any() else logs
        weights = np.exp(logs - logs.max())
        return rows, weights / weights.sum()

    def log_chances(self, turns: Sequence[Searched], who: Shopper | None) -> Floats:
        """For each listing of the shelf how likely it is that it came to mind and led to these searches and clicks."""
        first = turns[0]
        rows = first.intent.rows
        lean = self.trade.charm(rows, felt(first.at, who)) + (first.intent.lean - first.intent.charm)
        logs = lean - _log_sum(lean)
        for turn in turns:
            said, near = self._clue(turn, rows)
            logs = logs + said
            if turn.clicked:
                pull = self.trade.pull(self.trade.charm(np.array(turn.shown), felt(turn.at, who)) + near)
                logs = logs + _log_clicked(pull, turn.clicked)
        return np.asarray(logs)

    def _clue(self, turn: Searched, rows: Ints) -> tuple[Floats, Floats]:
        """For each listing how likely it is said in just these words [n], and what it lends to a page [n, places]."""
        key = id(turn.asked)
        if key not in self._clues:
            said = np.array([self._said(listing, turn.asked) for listing in rows.tolist()])
            near = self.trade.same(rows[:, None], np.array(turn.shown)) @ NEARNESS
            # Words that no listing of the shelf is called by would leave none; the least likely is then as good as any.
            self._clues[key] = np.log(np.maximum(said, 1e-30)), near
        return self._clues[key]

    def _said(self, listing: int, asked: Worded) -> float:
        product = self.trade.listings.products[self.trade.listings.default[listing]]
        chance = wording_chance(product.style, product.colour, asked.words)
        for kind, named in self.trade.mentions(product.style).items():
            chance *= named if kind in asked.named else 1 - named
        return chance


def _go_on(fork: Trade, meant: Intent, turn: Searched, at: Moment, page: bool) -> None:
    """The rest of a visit from a search on, of whose page nothing is known unless `page`."""
    shown = turn.shown if page else fork.rank(meant, turn.asked.named, at)
    fork.look(meant, shown, turn.asked.text, at)
    if at.visit.wish:
        return
    turns = fork.turns()
    while turns <= turn.number:
        turns = fork.turns()
    for _ in range(turn.number + 1, turns):
        fork.search(meant, at, again=True)


def _log_sum(values: Floats) -> Floats:
    top = values.max(axis=-1, keepdims=True)
    return np.asarray(top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True)))


def _log_clicked(pull: Floats, clicked: Sequence[int]) -> Floats:
    """The log-chance that the strongest pulls, with Gumbel noise, are at just these places, in whatever order [n]."""
    strength = np.exp(pull - pull.max(axis=1, keepdims=True))
    whole = strength.sum(axis=1)
    total = np.zeros(len(pull))
    for order in permutations(clicked):
        left, chance = whole, np.ones(len(pull))
        for place in order:
            chance = chance * strength[:, place] / np.maximum(left, 1e-300)
            left = left - strength[:, place]
        total += chance
    return np.asarray(np.log(np.maximum(total, 1e-300)))


class Tastes:
    """Tastes that explain what a shopper did, drawn by elliptical slice sampling.

    Tastes are taken for Gaussian, with mean and covariance of the shop's own shoppers: what personas, favourites and
    drift share is in them, not that favourites are few. So this judge is a little worse than the best that there is.
    """

    def __init__(self, judge: Judge, days: int, seed: int, shoppers: int = 4000) -> None:
        self.judge, self.rng = judge, np.random.default_rng(seed)
        drawn = draw_shoppers(self.rng, shoppers, days)[1:]
        both = np.array([np.concatenate([one.before, one.after]) for one in drawn])
        self.mean, self.turns = both.mean(axis=0), [one.turn for one in drawn]
        self.spread = np.linalg.cholesky(np.cov(both.T) + 1e-6 * np.eye(both.shape[1]))
        self._last: dict[str, tuple[Floats, float]] = {}

    def draw(self, who: Shopper, threads: Sequence[Sequence[Searched]], steps: int, kept: int) -> list[Shopper]:
        """`kept` tastes, of the later two thirds of `steps`; a shopper's next draw goes on from the last one."""
        state, turn = self._last.get(who.user_id, (np.zeros(len(self.mean)), float(np.median(self.turns))))
        now, found = self._log_chance(who, threads, state, turn), []
        for _ in range(steps):
            state, now = self._slice(who, threads, state, turn, now)
            other = self.turns[int(self.rng.integers(len(self.turns)))]
            then = self._log_chance(who, threads, state, other)
            if np.log(self.rng.random()) < then - now:
                turn, now = other, then
            found.append(self._shopper(who, state, turn))
        self._last[who.user_id] = state, turn
        return [found[place] for place in np.linspace(steps // 3, steps - 1, kept).astype(int).tolist()]

    def _shopper(self, who: Shopper, state: Floats, turn: float) -> Shopper:
        before, after = np.split(self.mean + state, 2)
        return replace(who, before=before, after=after, turn=turn)

    def _log_chance(self, who: Shopper, threads: Sequence[Sequence[Searched]], state: Floats, turn: float) -> float:
        one = self._shopper(who, state, turn)
        return float(sum(_log_sum(self.judge.log_chances(thread, one))[0] for thread in threads))

    def _slice(
        self, who: Shopper, threads: Sequence[Sequence[Searched]], state: Floats, turn: float, now: float
    ) -> tuple[Floats, float]:
        """One step on the ellipse through the state and a draw from the prior (Murray, Adams, MacKay 2010)."""
        other = self.spread @ self.rng.normal(size=len(state))
        level = now + np.log(self.rng.random())
        angle = float(self.rng.uniform(0, 2 * np.pi))
        low, high = angle - 2 * np.pi, angle
        while True:
            moved = state * np.cos(angle) + other * np.sin(angle)
            then = self._log_chance(who, threads, moved, turn)
            if then >= level:
                return moved, then
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = float(self.rng.uniform(low, high))


def visible(threads: Sequence[Sequence[Searched]], before: int) -> list[list[Searched]]:
    """What was asked and clicked until a second; of a search in that very second only that it was asked."""
    kept = [
        [turn if turn.second < before else turn.unanswered() for turn in thread if turn.second <= before]
        for thread in threads
    ]
    return [thread for thread in kept if thread]
