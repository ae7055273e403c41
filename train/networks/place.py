"""Where the networks of the pipeline and the baselines are trained: on the GPU where torch sees one, else on the CPU.

`CUDA_VISIBLE_DEVICES=` (empty) keeps a process off the GPU; with several GPUs it names the one to take. What is
trained on a GPU differs in its last digits from what a CPU makes, so two runs are compared on machines of a kind. The
language models have a place of their own (tools/llm/places.py), as they also choose a number format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def device() -> torch.device:
    """The GPU that is current, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def training(seed: int, threads: int) -> Iterator[torch.device]:
    """Gives the device to train on, with torch's random numbers seeded and so many threads of the CPU; what torch draws
    and how many threads it uses is as before afterwards."""
    place, before = device(), torch.get_num_threads()
    torch.set_num_threads(threads)  # another number adds in another order: the last digits differ
    try:
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.manual_seed(seed)
            yield place
    finally:
        torch.set_num_threads(before)
