"""The MCP App in a real browser: a sandboxed frame of a host that speaks the protocol to it."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

playwright_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(CHROMIUM, os.X_OK), reason="no Chromium is installed (apt install chromium)"),
]
CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
HOST = """<!doctype html><body style="margin:0"><script>
window.told = [];
const frame = document.createElement("iframe");
frame.setAttribute("sandbox", "allow-scripts");
frame.style = "border:0;width:100%;height:900px";
window.addEventListener("message", (event) => {
  if (event.source !== frame.contentWindow) return;
  window.told.push(event.data);
  if (event.data.method === "ui/initialize") {
    frame.contentWindow.postMessage({jsonrpc: "2.0", id: event.data.id, result: {protocolVersion: "2026-01-26",
      hostInfo: {name: "host", version: "1"}, hostCapabilities: {}, hostContext: {theme: THEME}}}, "*");
  } else if (event.data.method === "ui/notifications/initialized") {
    frame.contentWindow.postMessage({jsonrpc: "2.0", method: "ui/notifications/tool-result", params: RESULT}, "*");
  } else if (event.data.id) {
    frame.contentWindow.postMessage({jsonrpc: "2.0", id: event.data.id, result: {}}, "*");
  }
});
frame.srcdoc = PAGE;
document.body.append(frame);
</script></body>"""
EVIL = "<img src=x onerror=\"parent.postMessage('owned','*')\"> Boots"
LINE = {"rank": 1, "item_id": "B2", "title": EVIL, "price": 150.0, "currency": "EUR", "reason": "Boots, as asked.",
        "url": "https://shop.example/b2"}  # fmt: skip
PRODUCT = {
    "id": "P",
    "title": "Harrow Linen Shirt " + "x" * 90,
    "price_range": {"min": {"amount": 4800, "currency": "EUR"}, "max": {"amount": 5900, "currency": "EUR"}},
    "variants": [
        {
            "id": "V",
            "metadata": {"recgraph": {"reason": "Like the shirt you bought."}},
            "availability": {"available": False},
        }
    ],
    "url": "javascript:alert(1)",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=root)
        yield opened
        opened.close()


def shown(browser: Any, result: dict[str, Any], theme: str = "light") -> tuple[Any, Any, list[str]]:
    """A host's page of 360 pixels with the app in it, the app's frame, and what it asked of a network."""
    app = files("recgraph.protocols").joinpath("app.html").read_text(encoding="utf-8")
    app = app.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{CSP}">')
    page = browser.new_page(viewport={"width": 360, "height": 800})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    told = {"THEME": theme, "RESULT": result, "PAGE": app}
    host = HOST
    for name, value in told.items():
        host = host.replace(name, json.dumps(value).replace("</", "<\\/"))
    page.set_content(host)
    frame = page.frames[1] if len(page.frames) > 1 else page.wait_for_event("frameattached")
    return page, frame, [url for url in asked if not url.startswith("about:")]


def test_recommendations_are_shown_as_text_with_price_and_reason_and_opened_by_the_host(browser: Any) -> None:
    page, frame, asked = shown(browser, {"structuredContent": {"items": [LINE], "understood": ["Boots"]}})
    frame.wait_for_selector("li")
    assert frame.inner_text("h2") == EVIL
    assert frame.query_selector("img") is None
    assert frame.inner_text(".price") == "€150.00"
    assert frame.inner_text(".reason") == "Boots, as asked."
    assert frame.inner_text("#said") == "Understood: Boots"
    frame.focus("button")
    page.keyboard.press("Enter")
    page.wait_for_function("window.told.some((one) => one.method === 'ui/open-link')")
    told = page.evaluate("window.told")
    assert [one["params"] for one in told if one.get("method") == "ui/open-link"] == [
        {"url": "https://shop.example/b2"}
    ]
    assert any(one.get("method") == "ui/notifications/size-changed" for one in told)
    assert "owned" not in told
    assert asked == []
    page.close()


def test_ucps_products_fit_a_phone_and_follow_the_hosts_theme(browser: Any) -> None:
    page, frame, _ = shown(browser, {"structuredContent": {"products": [PRODUCT]}}, theme="dark")
    frame.wait_for_selector("li")
    assert frame.inner_text(".price") == "€48.00 – €59.00"
    assert frame.inner_text(".gone") == "Out of stock"
    assert frame.query_selector("button") is None  # no address but https is opened
    assert frame.evaluate("document.documentElement.scrollWidth") <= 360
    assert frame.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(25, 24, 23)"
    page.close()


def test_an_answer_without_products_says_so(browser: Any) -> None:
    page, frame, _ = shown(browser, {"structuredContent": {"items": []}})
    frame.wait_for_function("document.getElementById('said').textContent.startsWith('Nothing fits')")
    page.close()
