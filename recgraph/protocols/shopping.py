"""UCP's catalogue operations (version 2026-08-25): search, batch look-up, and one product with its options.

REST and MCP answer alike, so the answers are made here, as plain data. Requests are the SDK's models. Where a product
is recommended, its variant's `metadata.recgraph` says why, and the answer's `recgraph` by which run. Knows no
transport.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ucp_sdk.models.schemas.common.types.context import Context
from ucp_sdk.models.schemas.shopping.catalog_lookup import GetProductRequest, LookupRequest
from ucp_sdk.models.schemas.shopping.catalog_search import SearchRequest
from ucp_sdk.models.schemas.shopping.types.search_filters import SearchFilters
from ucp_sdk.models.schemas.shopping.types.selected_option import SelectedOption

from recgraph.errors import SettingsError
from recgraph.protocols.access import Caller, ProtocolOptions, Refused
from recgraph.protocols.catalog import Shelf, info, options_of, product_id, product_options, warning
from recgraph.protocols.money import major_units
from recgraph.protocols.profiles import VERSION, Profiles
from recgraph.service import Clock, Service
from recgraph.store.records import Item
from recgraph.tools.llm.untrusted import ID_LIMIT, harmless
from recgraph.tools.wish.spelling import fold
from recgraph.tools.wish.wish import Wish

SEARCH, LOOKUP = "dev.ucp.shopping.catalog.search", "dev.ucp.shopping.catalog.lookup"
MOST_IDS = 50  # of one look-up
PAGE, MOST_PAGE = 10, 50  # products
FOUND = 100  # items that a search ranks; its pages end there
MOST_VARIANTS = 200  # of one product
SECONDS = 5.0  # that a search may take, waiting included
_TEXT = 300  # characters of a reason


class UcpCatalogue:
    """The operations over one service. Thread-safe; errors are Refused and those of recgraph.errors."""

    def __init__(self, service: Service, options: ProtocolOptions | None = None) -> None:
        self.service, self.options = service, options or ProtocolOptions.from_environment()
        self.profiles = Profiles(self.options.profiles)

    def search(self, asked: SearchRequest, caller: Caller, clock: Clock) -> dict[str, Any]:
        """Products for a query, filters, or both, the best first; a page of them."""
        if (wrong := self._incompatible(SEARCH, caller)) is not None:
            return wrong
        intent = (asked.context.intent if asked.context else None) or ""
        query, filters = (asked.query or "").strip(), asked.filters
        if not query and not intent and not _filtering(filters):
            raise Refused("invalid_request", 400, "A search needs a query, or a filter.")
        shelf = self._shelf()
        start, size, fingerprint = _page(asked, caller)
        wish = self._wish(filters, asked.context, shelf)
        if wish is None or not shelf.currency:
            return _answer(SEARCH, shelf, {"products": [], "pagination": {"has_next_page": False}})
        found = self.service.recommend(caller.user_id, query or intent, wish=wish, k=FOUND, clock=clock, new_user=True)
        products = self._ranked(found, shelf)
        shown, more = products[start : start + size], len(products) > start + size
        page: dict[str, Any] = {"has_next_page": more}
        if more:
            page["cursor"] = _cursor(start + size, fingerprint)
        return _answer(SEARCH, shelf, {"products": shown, "pagination": page, "recgraph": _run(found)})

    def lookup(self, asked: LookupRequest, caller: Caller) -> dict[str, Any]:
        """The products of ids, of products or variants; what is not found is named in a message."""
        if (wrong := self._incompatible(LOOKUP, caller)) is not None:
            return wrong
        ids = list(dict.fromkeys(asked.ids))
        if len(ids) > MOST_IDS:
            raise Refused("request_too_large", 400, f"{len(ids)} ids; one request may have {MOST_IDS}.")
        shelf = self._shelf()
        fits = _fitting(asked.filters, asked.context, shelf)
        exact, groups = self._resolved(ids)
        inputs: dict[str, dict[str, list[str]]] = {}  # product → variant → ids that named it
        for item_id in exact:
            inputs.setdefault(product_id(exact[item_id]), {}).setdefault(item_id, []).append(item_id)
        items = dict(exact)
        for group, members in groups.items():
            fitting = [one for one in members if (told := shelf.variant(one)) is not None and fits(one, told)]
            named = [one for one in fitting if one.item_id in inputs.get(group, {})]
            if fitting:
                featured = (named or fitting)[0]
                items[featured.item_id] = featured
                inputs.setdefault(group, {}).setdefault(featured.item_id, []).append(group)
        products = [self._looked_up(group, of, items, shelf, fits) for group, of in inputs.items()]
        missing = [one for one in ids if one not in exact and one not in groups]
        shelf.notes += [info("not_found", harmless(one, ID_LIMIT)) for one in missing]
        return _answer(LOOKUP, shelf, {"products": [one for one in products if one]})

    def product(self, asked: GetProductRequest, caller: Caller) -> dict[str, Any]:
        """One product, its variants that fit the selected options, and which other options there are."""
        if (wrong := self._incompatible(LOOKUP, caller)) is not None:
            return wrong
        shelf = self._shelf()
        fits = _fitting(asked.filters, asked.context, shelf)
        exact, groups = self._resolved([asked.id])
        named = exact.get(asked.id)
        group = product_id(named) if named else asked.id
        members = groups.get(group) or self._resolved([group])[1].get(group) or ([named] if named else [])
        told = {one.item_id: shelf.variant(one) for one in members}
        sold = [one for one in members if told[one.item_id] is not None]
        if not sold or (named and told.get(named.item_id) is None):
            return failed(LOOKUP, "not_found", f"Product not found: {harmless(asked.id, ID_LIMIT)}", shelf.messages())
        effective = _effective(sold, named, asked.selected or (), asked.preferences or ())
        chosen = [one for one in _matching(sold, effective) if fits(one, told[one.item_id] or {})]
        if named in chosen:
            chosen = [named, *(one for one in chosen if one is not named)]
        if not chosen:
            return failed(LOOKUP, "not_found", "No variant of this product fits the filters.", shelf.messages())
        product = shelf.product(group, sold, [told[one.item_id] or {} for one in chosen])
        if product.get("options"):
            product["selected"] = [{"name": name, "label": label} for name, label in effective.items()]
            product["options"] = _signalled(sold, effective)
        return _answer(LOOKUP, shelf, {"product": product})

    def _shelf(self) -> Shelf:
        return Shelf.of(self.options.currency or self.service.recommender.currency)

    def _incompatible(self, capability: str, caller: Caller) -> dict[str, Any] | None:
        """The answer to an agent that does not have a capability. Refused for a profile that cannot be used."""
        theirs = self.profiles.capabilities(caller.profile)
        if theirs is None or capability in theirs:
            return None
        why = "No compatible capabilities in the intersection"
        return failed("", "capabilities_incompatible", why)

    def _wish(self, filters: SearchFilters | None, context: Context | None, shelf: Shelf) -> Any:
        """The filters as a wish, all of it hard; None where no product can fit them. Refused for bounds that exclude
        each other."""
        low, high = _bounds(filters, context, shelf)
        wanted = [one for one in (filters.categories or ()) if one.strip()] if filters else []
        known = [one for one in wanted if self._is_category(one)]
        if wanted and not known:
            return None
        price = {"at_least": major_units(low, shelf.currency)} if low is not None else {}
        if high is not None:
            price["at_most"] = major_units(high, shelf.currency)
        try:
            return self.service.filters({"category": known} if known else {}, {}, price or None)
        except SettingsError as error:
            raise Refused("invalid_request", 400, str(error)) from None

    def _is_category(self, value: str) -> bool:
        try:
            self.service.filters({"category": [value]})
        except SettingsError:
            return False
        return True

    def _ranked(self, found: Mapping[str, Any], shelf: Shelf) -> list[dict[str, Any]]:
        """What a search found as products, in its order: those that fit most of what the query names, with a message
        where that is not all of it."""
        most = max((line["fits"] for line in found["items"]), default=0)
        named = len(Wish.from_dict(found["understood"]).named)
        lines = [line for line in found["items"] if line["fits"] == most]
        if lines and most < named:
            shelf.notes.append(
                info("partial_match", f"No product has all that was named; these have {most} of {named}.")
            )
        known = self.service.items([line["item_id"] for line in lines])
        groups: dict[str, tuple[list[Item], list[dict[str, Any]]]] = {}
        for line in lines:
            item = known.get(line["item_id"])
            variant = shelf.variant(item, why(line)) if item else None
            if item and variant:
                items, variants = groups.setdefault(product_id(item), ([], []))
                items.append(item)
                variants.append(variant)
        return [shelf.product(group, items, variants) for group, (items, variants) in groups.items()]

    def _resolved(self, ids: Sequence[str]) -> tuple[dict[str, Item], dict[str, list[Item]]]:
        """What ids name: the variants (listed ones) and, of the others, the products with their items."""
        looked = [one for one in ids if 0 < len(one) <= ID_LIMIT]
        exact = {key: item for key, item in self.service.items(looked).items() if item.listed}
        groups: dict[str, list[Item]] = {}
        for item in self.service.recommender.store.variants([one for one in looked if one not in exact], MOST_VARIANTS):
            groups.setdefault(item.parent_id, []).append(item)
        return exact, groups

    def _looked_up(
        self, group: str, inputs: Mapping[str, list[str]], items: Mapping[str, Item], shelf: Shelf, fits: Any
    ) -> dict[str, Any] | None:
        variants, shown = [], []
        for item_id, named in inputs.items():
            variant = shelf.variant(items[item_id])
            if variant is not None and fits(items[item_id], variant):
                match = [{"id": one, "match": "exact" if one == item_id else "featured"} for one in named]
                variants.append({**variant, "inputs": match})
                shown.append(items[item_id])
        return shelf.product(group, shown, variants) if variants else None


def why(line: Mapping[str, Any]) -> dict[str, Any]:
    """Why an item is shown, of its line in the public JSON: the vendor extension."""
    told = {
        "reason": harmless(line["reason"], _TEXT),
        "source": line["source"],
        "score": line["score"],
        "evidence": {
            "event_seqs": list(line["evidence"]["event_seqs"]),
            "queries": [harmless(one, _TEXT) for one in line["evidence"]["queries"]],
        },
    }
    return {name: value for name, value in told.items() if value not in ("", None)}


def failed(capability: str, code: str, content: str, more: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A successful answer that says that there is nothing to show."""
    error = {"type": "error", "code": code, "content": content, "severity": "unrecoverable"}
    active = {capability: [{"version": VERSION}]} if capability else {}
    return {
        "ucp": {"version": VERSION, "status": "error", "capabilities": active},
        "messages": [error, *(dict(one) for one in more)],
    }


def _answer(capability: str, shelf: Shelf, body: Mapping[str, Any]) -> dict[str, Any]:
    told = shelf.messages()
    return {
        "ucp": {"version": VERSION, "status": "success", "capabilities": {capability: [{"version": VERSION}]}},
        **body,
        **({"messages": told} if told else {}),
    }


def _run(found: Mapping[str, Any]) -> dict[str, Any]:
    """The vendor extension of an answer: its run, what was understood, and what it had to do without. That nobody known
    has no history is not worth a word."""
    degraded = [one for one in found["degraded"] if found["user_id"] or not one.startswith("load_history:")]
    return {
        "run_id": found["run_id"],
        "understood": [harmless(part, _TEXT) for part in found["understood"]["parts"]],
        "relaxed": [{"part": harmless(one["part"], _TEXT), "more": one["more"]} for one in found["relaxed"]],
        "plan": [harmless(one, _TEXT) for one in found["plan"]],
        "degraded": [harmless(one, _TEXT) for one in degraded],
    }


def _filtering(filters: SearchFilters | None) -> bool:
    return filters is not None and bool(filters.categories or filters.price)


def _bounds(filters: SearchFilters | None, context: Context | None, shelf: Shelf) -> tuple[int | None, int | None]:
    """The price filter in the shop's minor units; (None, None) with a message where it is in another currency."""
    price = filters.price if filters else None
    if price is None or not shelf.currency:
        return None, None
    theirs = (context.currency if context else None) or ""
    if theirs and theirs.strip().upper() != shelf.currency:
        said = f"Prices are in {shelf.currency}; the price filter, which is in {harmless(theirs, 8)}, was not applied."
        shelf.notes.append(warning("price_filter_ignored", said))
        return None, None
    if not theirs:
        shelf.notes.append(info("price_filter_currency", f"The price filter was read as {shelf.currency}."))
    return price.min, price.max


def _fitting(filters: SearchFilters | None, context: Context | None, shelf: Shelf) -> Any:
    """Whether an item, as a variant, holds to the filters."""
    low, high = _bounds(filters, context, shelf)
    categories = {fold(one) for one in (filters.categories or ())} if filters else set()

    def fits(item: Item, variant: Mapping[str, Any]) -> bool:
        amount = variant["price"]["amount"]
        within = (low is None or amount >= low) and (high is None or amount <= high)
        return within and (not categories or fold(item.category) in categories)

    return fits


def _effective(
    items: Sequence[Item], named: Item | None, selected: Iterable[SelectedOption], preferences: Sequence[str]
) -> dict[str, str]:
    """The option values that hold: those of a named variant, else of what was selected as much as some variant has,
    given up from the end of the preferences, else those of the featured variant."""
    if named:
        return _values(named)
    asked = {one.name.casefold(): one.label for one in selected}
    names = {option["name"].casefold(): option["name"] for one in items for option in options_of(one)}
    wanted = {names[name]: label for name, label in asked.items() if name in names}
    order = {name.casefold(): place for place, name in reversed(list(enumerate(preferences)))}
    kept = sorted(wanted, key=lambda name: order.get(name.casefold(), len(order)))
    while kept:
        effective = {name: wanted[name] for name in kept}
        if found := _matching(items, effective):
            return {name: _values(found[0])[name] for name in kept}
        kept.pop()
    return {} if asked else _values(items[0])


def _values(item: Item) -> dict[str, str]:
    return {option["name"]: option["label"] for option in options_of(item)}


def _matching(items: Iterable[Item], options: Mapping[str, str]) -> list[Item]:
    wanted = {(name, label.casefold()) for name, label in options.items()}
    return [one for one in items if wanted <= {(name, label.casefold()) for name, label in _values(one).items()}]


def _signalled(items: Sequence[Item], effective: Mapping[str, str]) -> list[dict[str, Any]]:
    """The options of a product, each value with whether a variant has it beside the other values that hold, and whether
    one of these can be bought."""
    options = product_options(items)
    for option in options:
        others = {name: label for name, label in effective.items() if name != option["name"]}
        for value in option["values"]:
            there = _matching(items, {**others, option["name"]: value["label"]})
            value.update(available=any(one.offered for one in there), exists=bool(there))
    return options


def _page(asked: SearchRequest, caller: Caller) -> tuple[int, int, str]:
    """Where a page starts, how many products it may have, and the fingerprint of what is asked, which its cursor has to
    be of. Refused."""
    told = asked.model_dump(mode="json", include={"query", "filters", "context"}, exclude_none=True)
    fingerprint = hashlib.sha256(json.dumps([told, caller.user_id], sort_keys=True).encode()).hexdigest()[:16]
    size = min((asked.pagination.limit if asked.pagination else None) or PAGE, MOST_PAGE)
    cursor = asked.pagination.cursor if asked.pagination else None
    if not cursor:
        return 0, size, fingerprint
    try:
        start, of = json.loads(base64.urlsafe_b64decode(cursor[:200].encode("ascii")))
        if of == fingerprint and isinstance(start, int) and 0 < start <= FOUND:
            return start, size, fingerprint
    except (ValueError, TypeError, binascii.Error):
        pass
    raise Refused("invalid_request", 400, "This cursor belongs to no search like this one.")


def _cursor(start: int, fingerprint: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, fingerprint]).encode()).decode()
