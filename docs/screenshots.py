"""Takes the pictures of the page that the README and docs/http.md show, of a server that runs over the demo shop.

    recgraph demo --store shop.duckdb
    recgraph serve --store shop.duckdb --port 8123
    python docs/screenshots.py --url http://127.0.0.1:8123 [--out docs/images]

Needs playwright and a Chromium (`--chromium`, Debian's by default). It clicks, so the store has events more
afterwards: take a fresh demo shop. Writes page.png (a search and what a cart changed), page-dark.png (a phone, dark),
and page-chat.png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

MOST_BYTES = 300_000  # of a picture
SETTLED = 900  # ms until what moves stands still


def opened(browser: Browser, url: str, width: int, height: int, *, dark: bool = False) -> Page:
    """The page in a window of its own, its first answer complete."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1.5 if dark else 1.1
    )
    page = context.new_page()
    page.goto(url)
    answered(page)
    return page


def answered(page: Page) -> None:
    """Waits until an answer is complete and everything stands still."""
    expect(page.locator("body:not(.busy) .card").first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(SETTLED)


def search(browser: Browser, url: str, out: Path) -> None:
    """A search, one product put in the cart, and the next answer with what moved; a sentence shows its events."""
    page = opened(browser, url, 1280, 1290)
    page.locator("#words").fill("summer dress for a wedding under 150")
    page.locator("#go").click()
    expect(page.locator(".chip").first).to_be_visible()
    answered(page)
    page.locator(".card").nth(5).get_by_role("button", name="Add to cart").click()
    expect(page.locator(".moved").first).to_be_visible()
    answered(page)
    page.locator(".sentence").nth(1).click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(3500)  # the note on what was recorded goes
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.screenshot(path=out / "page.png")


def phone(browser: Browser, url: str, out: Path) -> None:
    """A search on a phone as wide as the narrowest, dark."""
    page = opened(browser, url, 360, 1560, dark=True)
    page.locator("#words").fill("black boots under 250")
    page.locator("#go").click()
    expect(page.locator(".chip").first).to_be_visible()
    answered(page)
    page.mouse.move(0, 0)
    page.evaluate("document.querySelector('.run').scrollIntoView()")
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=out / "page-dark.png")


def chat(browser: Browser, url: str, out: Path) -> None:
    """Three turns, in which wishes add up."""
    page = opened(browser, url, 1280, 1100)
    page.get_by_text("Chat", exact=True).click()
    for turns, words in enumerate(("a warm coat for winter", "under 250", "not black"), 1):
        page.locator("#words").fill(words)
        page.keyboard.press("Enter")
        expect(page.locator(".turn.shop")).to_have_count(turns, timeout=60_000)
        answered(page)
    page.evaluate("document.querySelector('.run').scrollIntoView()")
    page.wait_for_timeout(SETTLED)
    page.screenshot(path=out / "page-chat.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the page.")
    parser.add_argument("--url", required=True, help="of a running `recgraph serve` over the demo shop")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=root)
        for take in (search, phone, chat):
            take(browser, given.url, given.out)
        browser.close()
    for picture in sorted(given.out.glob("page*.png")):
        size = picture.stat().st_size
        print(f"{picture}  {size / 1000:.0f} kB{'  TOO LARGE' if size > MOST_BYTES else ''}")


if __name__ == "__main__":
    main()
