"""The HTTP door: `recgraph serve`. Needs the extra `serve`."""
