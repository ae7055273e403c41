"""The page at `/` in a real Chromium, against a real server over a small shop."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes import SHOP_EVENTS, SHOP_EXPOSURES, SHOP_ITEMS

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from serving import Served, serving

from recgraph.http.keys import Keys
from recgraph.store.db import Store

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
NOTE = "Simulated shop: invented shoppers and products; no real person, brand or sale."
EVIL = "<img src=x onerror=window.hit=1>"
LONG = "W" * 900
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason="no Chromium is installed (apt install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=root)
        yield browser
        browser.close()


@pytest.fixture
def shop(make_store: Callable[..., Store]) -> Path:
    return filled(make_store, SHOP_ITEMS)


def filled(make_store: Callable[..., Store], items: str, *, simulated: str = NOTE) -> Path:
    made = make_store(items, SHOP_EVENTS, SHOP_EXPOSURES)
    made.close()
    with Store.open(made.path, write=True) as store:
        for key, value in (("name", "Harrow & Fenn"), ("currency", "€"), ("simulated", simulated)):
            store.set_meta(key, value)
    return made.path


@pytest.fixture
def server(shop: Path) -> Iterator[Served]:
    with served(shop) as found:
        yield found


def served(store: Path, **more: Any) -> Any:
    return serving(store, **more)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """opened(url, width=…, dark=…) -> a page of its own, at that address. At the end nothing may have gone wrong on it
    that the test did not expect (`expected`: how errors of the console may begin)."""
    contexts = []
    wrong: list[str] = []

    def open_page(url: str, width: int = 1280, height: int = 900, expected: str = "", **context: Any) -> Page:
        made = browser.new_context(viewport={"width": width, "height": height}, **context)
        contexts.append(made)
        page = made.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda told: (
                None
                if told.type != "error" or (expected and told.text.startswith(expected))
                else wrong.append(told.text)
            ),
        )
        page.goto(url)
        return page

    yield open_page
    for made in contexts:
        made.close()
    assert wrong == []


FAILED = "Failed to load resource:"  # what Chromium says in the console of every refused request


def cards(page: Page) -> list[str]:
    """The ids of the products shown, in order, once the answer is complete."""
    expect(page.locator("body:not(.busy) .card").first).to_be_visible()
    return [str(card.get_attribute("data-item")) for card in page.locator(".card").all()]


def known_events(server: Served, user_id: str = "U1") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get(f"/v1/users/{user_id}/history?limit=100").json()["events"]
    return found


def test_the_first_visit_to_an_invented_shop_shows_an_answer_and_its_eight_nodes(
    server: Served, opened: Callable[..., Page]
) -> None:
    page = opened(server.url)
    assert cards(page)
    expect(page.locator("#nodes li[data-state=done]")).to_have_count(7)
    expect(page.locator("#node-recommend .ms")).to_have_text("not asked")  # there is no language model
    times = page.locator("#nodes li[data-state=done] .ms").all_inner_texts()
    assert all(text.strip().endswith(("ms", "s")) for text in times)
    expect(page.locator("#now")).to_contain_text("in all")
    expect(page.locator("#simulated")).to_have_text(NOTE)
    expect(page.locator("#who")).to_have_value("U1")
    first = page.locator(".card").first
    expect(first.locator("h3")).not_to_be_empty()
    expect(first.locator(".price")).to_contain_text("€")
    expect(first.locator(".reason")).not_to_be_empty()
    expect(page.locator("#said")).to_contain_text("for U1. First:")


def test_a_real_shop_is_asked_nothing_before_a_shopper_is_picked(
    make_store: Callable[..., Store], opened: Callable[..., Page]
) -> None:
    with served(filled(make_store, SHOP_ITEMS, simulated="")) as server:
        page = opened(server.url)
        expect(page.locator("#shop")).to_have_text("Harrow & Fenn")
        expect(page.locator("#simulated")).to_be_hidden()
        expect(page.locator(".card")).to_have_count(0)
        page.get_by_role("combobox").click()
        page.get_by_role("option", name="U2").click()
        assert cards(page)
        expect(page.locator("#answer-title")).to_have_text("For U2")


def test_everything_is_reached_by_the_keyboard_alone(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    press = page.keyboard.press
    press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    press("Tab")
    expect(page.locator("#theme")).to_be_focused()
    press("Tab")
    who = page.get_by_role("combobox")
    expect(who).to_be_focused()
    expect(who).to_have_attribute("aria-expanded", "true")
    press("ArrowDown")
    press("ArrowDown")
    picked = page.locator(f"#{who.get_attribute('aria-activedescendant')}")
    expect(picked).to_have_attribute("aria-selected", "true")
    user = picked.get_attribute("data-user")
    press("Escape")
    expect(who).to_have_attribute("aria-expanded", "false")
    expect(who).to_have_value("U1")
    press("ArrowDown")
    press("ArrowDown")
    press("Enter")
    expect(page.locator("#answer-title")).to_have_text(f"For {user}")
    press("Tab")  # be someone new
    press("Tab")
    expect(page.locator("input[value=search]")).to_be_focused()
    press("Tab")
    page.keyboard.type("olive shirts")
    press("Enter")
    expect(page.locator(".chip").first).to_be_visible()
    cards(page)
    seen = set()
    for _ in range(60):  # to the end and out: no trap
        press("Tab")
        seen.add(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        if page.evaluate("document.activeElement === document.querySelector('.foot a')"):
            break
    else:
        raise AssertionError(f"the end of the page is not reached: {seen}")
    assert {"sentence", "look", "act", "act open", "link"} <= seen


def test_focus_is_seen(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        seen = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        inside = page.evaluate("document.activeElement.matches('input[type=radio]')")  # its label shows it
        assert seen != "none" or inside


def test_a_sentence_lights_up_the_events_behind_it(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    sentence = page.locator(".sentence").first
    expect(sentence).to_be_visible()
    told = server.client.get("/v1/users/U1/summary").json()["sentences"][0]["events"]
    sentence.focus()
    expect(page.locator("#ribbon i.lit")).to_have_count(len(told))
    expect(page.locator("#events-title")).to_have_text(f"{len(told)} event{'s' * (len(told) != 1)} behind it")
    sentence.press("Enter")
    page.locator("#words").focus()
    expect(sentence).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#ribbon i.lit")).to_have_count(len(told))
    sentence.click()
    page.locator("#words").focus()
    expect(page.locator("#ribbon i.lit")).to_have_count(0)


def test_why_shows_the_events_and_the_source(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    why = page.locator(".card").first.get_by_role("button", name="Why")
    why.click()
    expect(why).to_have_attribute("aria-expanded", "true")
    region = page.locator(".card").first.locator(".why")
    expect(region).to_contain_text("Source")
    expect(region).to_contain_text(cards(page)[0])


def test_a_click_is_an_event_and_the_next_answer_knows_it(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    before = cards(page)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "recommendations" in request.url else None)
    wanted = page.locator(f'.card[data-item="{before[-1]}"]').get_by_role("button", name="Add to cart")
    wanted.focus()
    wanted.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Recorded: you put in the cart")
    expect(page.locator(".card .moved").first).to_be_visible()
    assert [(event["action"], event["item_id"]) for event in known_events(server)][0:1] != []
    assert ("cart", before[-1]) in [(event["action"], event["item_id"]) for event in known_events(server)]
    assert len(asked) == 1
    assert cards(page) != before
    moved = page.locator(f'.card[data-item="{before[-1]}"]')
    if moved.count():
        expect(moved.get_by_role("button", name="Add to cart")).to_be_focused()  # where the reader was
    expect(page.locator("#events")).to_contain_text("put in the cart")


def test_without_asking_again_a_click_is_recorded_alone(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    before = cards(page)
    page.get_by_label("Answer again after each click").uncheck()
    page.locator(".card .look").nth(1).click()
    expect(page.locator("#toast")).to_contain_text("looked at")
    assert ("click", before[1]) in [(event["action"], event["item_id"]) for event in known_events(server)]
    assert cards(page) == before


def test_a_part_of_what_was_understood_is_taken_back(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    page.locator("#words").fill("olive shirts under 50")
    page.locator("#go").click()
    expect(page.locator(".chip")).to_have_count(3)
    with page.expect_request("**/v1/recommendations") as asked:
        page.get_by_role("button", name="Remove under €50").click()
    body = json.loads(asked.value.post_data or "")
    assert body["query"] == ""
    assert body["wish"]["price"] == {"at_most": None, "at_least": None, "about": None}
    expect(page.locator(".chip")).to_have_count(2)
    assert cards(page)[0] in ("S1OLIV", "S2OLIV")


def test_what_could_give_way_is_a_button(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    page.locator("#words").fill("shirts under 5")
    page.locator("#go").click()
    expect(page.locator(".note.lost")).to_be_visible()
    page.get_by_role("button", name="Without “under €5”").click()
    assert cards(page)
    expect(page.locator(".chip")).to_have_text(["shirts×"])


def test_the_chat_shows_its_turns_and_products(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    page.get_by_text("Chat", exact=True).click()
    page.locator("#words").fill("something olive")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.you")).to_have_text("You: something olive")
    expect(page.locator(".turn.shop")).to_be_visible()
    expect(page.locator(".chip")).to_have_count(1)
    assert all("Olive" in text for text in page.locator(".card h3").all_inner_texts()[:3])
    expect(page.locator("#words")).to_be_focused()
    page.get_by_role("button", name="Remove").click()
    expect(page.locator(".turn.you").nth(1)).to_contain_text("forget the Olive")


def test_someone_unknown_goes_on_as_someone_new(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url, expected=FAILED)
    cards(page)
    page.locator("#who").fill("NOBODY")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("No events of this user are known")
    alert.get_by_role("button", name="Go on as someone new").click()
    assert cards(page)
    expect(page.locator("#answer-title")).to_have_text("For someone new")
    expect(page.locator("#person")).to_be_hidden()


def test_someone_new_is_known_from_the_first_click_on(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    page.get_by_role("button", name="Be someone new").click()
    expect(page.locator("#answer-title")).to_have_text("For someone new")
    page.locator(".card .look").nth(cards(page).index("B2BLCK")).click()
    expect(page.locator("#events")).to_contain_text("looked at Otter Hiking Boots")
    user = page.locator("#who").input_value()
    assert user.startswith("guest-")
    assert [event["item_id"] for event in known_events(server, user)] == ["B2BLCK"]


def test_texts_of_the_shop_stay_texts(make_store: Callable[..., Store], opened: Callable[..., Page]) -> None:
    items = SHOP_ITEMS.replace("Harrow Linen Shirt, Navy, M", EVIL).replace(
        "Fenn Cable Cardigan, Grey, M", "a\u202egnp.exe\u200f b"
    )
    items = items.replace("Harrow Wool Jumper, Olive, M", LONG)
    with served(filled(make_store, items)) as server:
        page = opened(server.url, width=360)
        page.locator("#words").fill(f"<script>window.hit=1</script>{EVIL}")
        page.locator("#go").click()
        shown = cards(page)
        assert {"S1NAVY", "K1GREY", "K2OLIV"} <= set(shown)
        expect(page.locator('[data-item="S1NAVY"] h3')).to_have_text(EVIL)
        expect(page.locator('[data-item="K1GREY"] h3')).to_have_text("a gnp.exe b")
        assert page.evaluate("window.hit") is None
        assert page.locator("main img, main script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(server: Served, opened: Callable[..., Page], width: int) -> None:
    page = opened(server.url, width=width, height=740)
    cards(page)
    page.locator("#words").fill("olive shirts under 50 not Fenn")
    page.locator("#go").click()
    expect(page.locator(".chip").first).to_be_visible()
    page.locator(".card .open").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    small = page.evaluate("""() => [...document.querySelectorAll("button, input:not([type=radio],[type=checkbox]), a")]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 24 && !one.closest(".foot, p.skip"))
        .map((one) => one.className + one.id)""")
    assert small == []  # fingers


def test_dark_follows_the_system_until_chosen_and_is_kept(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url, color_scheme="dark")
    theme = page.locator("html")
    expect(theme).to_have_attribute("data-theme", "dark")
    page.locator("#theme").click()
    expect(theme).to_have_attribute("data-theme", "light")
    page.reload()
    expect(theme).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(server: Served, opened: Callable[..., Page], scheme: str) -> None:
    page = opened(server.url, color_scheme=scheme)
    names = ["paper", "card", "ink", "soft", "accent", "on-accent", "tint", "warn-tint"]
    tokens = page.evaluate(
        "(names) => names.map((one) => getComputedStyle(document.documentElement).getPropertyValue('--' + one).trim())",
        names,
    )
    value = dict(zip(names, map(luminance, tokens), strict=True))
    pairs = [(text, back) for text in ("ink", "soft", "accent") for back in ("paper", "card", "tint")]
    for text, back in [*pairs, ("on-accent", "accent"), ("ink", "warn-tint")]:
        light, dark = max(value[text], value[back]), min(value[text], value[back])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_who_wants_no_motion_gets_none(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url, reduced_motion="reduce")
    before = cards(page)
    page.locator(f'.card[data-item="{before[-1]}"]').get_by_role("button", name="Add to cart").click()
    expect(page.locator(".card .moved").first).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0


def test_a_server_that_is_gone_is_told_with_a_way_on(shop: Path, opened: Callable[..., Page]) -> None:
    with served(shop) as server:
        page = opened(server.url, expected=FAILED)
        cards(page)
    page.locator("#go").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server does not answer")
    page.route("**/v1/recommendations", lambda route: route.fulfill(status=503, json={"detail": "The store is busy."}))
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("The store is busy.")
    expect(page.locator("#now")).to_have_text("The run did not end.")


def test_an_answer_that_breaks_off_is_told(server: Served, opened: Callable[..., Page]) -> None:
    page = opened(server.url)
    cards(page)
    step = 'event: node\ndata: {"node": "load_history", "ms": 3}\n\n'
    page.route("**/v1/recommendations", lambda route: route.fulfill(content_type="text/event-stream", body=step))
    page.locator("#go").click()
    expect(page.get_by_role("alert")).to_contain_text("went away before its answer was complete")


def test_a_key_is_asked_for_once_and_kept_for_the_tab(shop: Path, opened: Callable[..., Page]) -> None:
    keys = Keys.beside(shop)
    token = keys.add("page", ("recommend", "events"), "")
    with served(shop, keys=keys) as server:
        page = opened(server.url, expected=FAILED)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("asks for a key")
        page.get_by_label("API key").fill("rg_wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("not accepted")
        page.get_by_label("API key").fill(token)
        with page.expect_request("**/v1/recommendations") as asked:
            page.get_by_role("button", name="Use it").click()
        assert asked.value.headers["authorization"] == f"Bearer {token}"
        assert cards(page)
        assert page.evaluate("[sessionStorage['recgraph-key'], localStorage.length]") == [token, 0]
        assert token not in page.url
        page.reload()
        assert cards(page)
        expect(dialog).to_be_hidden()


def test_without_a_key_the_page_says_what_it_needs(shop: Path, opened: Callable[..., Page]) -> None:
    keys = Keys.beside(shop)
    keys.add("page", ("recommend",), "")
    with served(shop, keys=keys) as server:
        page = opened(server.url, expected=FAILED)
        page.get_by_role("button", name="Not now").click()
        expect(page.get_by_role("alert")).to_contain_text("Give a key")
        page.get_by_role("alert").get_by_role("button", name="Enter a key").click()
        expect(page.get_by_role("dialog")).to_be_visible()


def test_the_page_lets_nothing_run_but_its_own_files(server: Served, opened: Callable[..., Page]) -> None:
    for path, kind in (("/", "text/html"), ("/page/page.js", "text/javascript"), ("/page/page.css", "text/css")):
        answer = server.client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        same = server.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert same.status_code == 304
    page = opened("about:blank", expected="Executing inline script violates")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    cards(page)
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []
    with suppress(Exception):
        page.evaluate(
            "() => { const one = document.createElement('script'); one.textContent = 'window.ran = 1'; document.head.append(one); }"
        )
    assert page.evaluate("window.ran") is None
