"""The assistant behind AG-UI, the protocol that chat interfaces such as CopilotKit speak: an ASGI app.

    pip install 'recgraph[agui]' uvicorn
    uvicorn --app-dir examples agui_server:app

It trusts the user_id that a request's state names: put it behind your own sign-in, on loopback until then.
"""

from __future__ import annotations

from ag_ui_langgraph import LangGraphAgent, add_langgraph_fastapi_endpoint
from fastapi import FastAPI
from langgraph.checkpoint.memory import InMemorySaver

from recgraph import Recommender
from recgraph.graph.assistant.talk import build_talk

app = FastAPI(title="recgraph over AG-UI")
graph = build_talk(Recommender.open(), InMemorySaver())
add_langgraph_fastapi_endpoint(app, LangGraphAgent(name="recgraph", graph=graph), "/agent")
