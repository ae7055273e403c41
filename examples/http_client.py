"""A shop's backend asking recgraph over HTTP: python examples/http_client.py [URL] [USER] [QUERY]

Start a server first: recgraph demo && recgraph serve. A key, where it asks for one: RECGRAPH_KEY.
"""

from __future__ import annotations

import json
import os
import sys
import uuid

import httpx

url, user, query = [*sys.argv[1:4], *("http://127.0.0.1:8080", "U123", "chunky wool cardigan")[len(sys.argv[1:4]) :]]
key = os.environ.get("RECGRAPH_KEY", "")

with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60) as shop:
    # Watch the nodes end, then show the answer.
    asked = {"user_id": user, "query": query, "k": 3, "new_user": True, "stream": True}
    with shop.stream("POST", "/v1/recommendations", json=asked) as events:
        events.raise_for_status()
        name, answer = "", {}
        for line in events.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data" and name == "node":
                print(f"{json.loads(value)['node']} ", end="", flush=True)
            elif field == "data":
                answer = json.loads(value)
    if name == "problem":
        sys.exit(f"\n{answer['detail']} (request {answer['request_id']})")
    print()
    for item in answer["items"]:
        print(f"{item['rank']:>3}  {item['item_id']}  {item['title']}\n     {item['reason']}")

    # They buy the first one; the next answer knows it. The same id may be sent twice.
    first = answer["items"][0]["item_id"]
    bought = {"event_id": uuid.uuid4().hex, "user_id": user, "action": "purchase", "item_id": first}
    for _ in range(2):
        told = shop.post("/v1/events", json={"events": [bought]})
        print(f"{told.status_code} {told.json()}")
    again = shop.post("/v1/recommendations", json={**asked, "stream": False}).json()
    print(f"{first} is {'' if first in [item['item_id'] for item in again['items']] else 'not '}shown again")

    # Why, and what is known of them.
    why = shop.get(f"/v1/runs/{answer['run_id']}").json()["items"][0]
    print(f"{why['item_id']} came from {why['source']}, by the events {why['evidence']['event_seqs']}")
    for sentence in shop.get(f"/v1/users/{user}/summary").json()["sentences"]:
        print(f"- {sentence['text']} ({len(sentence['events'])} events)")
