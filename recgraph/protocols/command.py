"""The command `recgraph mcp`: the shop's tools for an assistant on this machine, over standard input and output."""

from __future__ import annotations

import click

from recgraph.options import one_thread_an_answer, store_option


@click.command()
@click.option("--user", metavar="ID", default="", help="answer for this shopper, and for no other")
@click.option(
    "--key",
    metavar="KEY",
    default="",
    envvar="RECGRAPH_KEY",
    show_envvar=True,
    help="a key of this store: its scopes and its shopper",
)
@click.option("--llm", metavar="MODEL", help="ask a language model too: folder, hub id or `default`  [default: none]")
@click.option("--llm-url", metavar="URL", help="vLLM server, e.g. http://127.0.0.1:8000/v1")
@store_option
def mcp(user: str, key: str, llm: str | None, llm_url: str | None, store: str | None) -> None:
    """Serve the shop's tools to an assistant over MCP (stdio).

    An assistant starts this command itself: give it as the command of an MCP server. The tools are UCP's
    search_catalog, lookup_catalog and get_product, and recommend, record_event and explain_recommendation.

    Whoever starts it can read the store anyway: without --user or --key any shopper may be named.
    """
    one_thread_an_answer()
    from recgraph.errors import SettingsError
    from recgraph.graph.recommender import Recommender
    from recgraph.graph.traces.collector import traced
    from recgraph.http.access import Entrance
    from recgraph.http.keys import Grant, Keys
    from recgraph.protocols.mcp_server import server
    from recgraph.service import Service
    from recgraph.settings import load_settings

    place = load_settings(store=store).store
    keys = Keys.beside(place)
    grant = keys.grant(key) if key else Grant()
    if grant is None:
        raise SettingsError("This key is not one of the store's: recgraph keys list")
    if user and not grant.sees(user):
        raise SettingsError("This key is for another shopper than --user names.")
    chosen = Grant(grant.scopes, user or grant.user_id, grant.key)
    with Recommender.open(place, llm=llm, llm_url=llm_url) as recommender, traced(recommender):
        server(Service(recommender), Entrance(keys), who=lambda headers: chosen).run("stdio")
