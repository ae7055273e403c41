"""Where networks are trained, and that a training leaves torch as it was."""

from __future__ import annotations

import torch

from recgraph.train.networks.place import device, training


def test_a_training_is_seeded_and_leaves_threads_and_random_numbers_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with training(seed=3, threads=1) as place:
            assert torch.get_num_threads() == 1
            drawn.append(torch.rand(4, device=place))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gpu_is_taken_where_torch_sees_one() -> None:
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")
