import numpy as np
import torch

from omnimotion_core.flow.correspondences import Correspondences
from omnimotion_core.optimization.sampling import MatchSampler


def test_a_drawn_match_is_one_of_the_store(matches: Correspondences) -> None:
    sampler = MatchSampler(matches, torch.device("cpu"))
    index = torch.tensor([0, 17, len(matches) - 1])
    batch = sampler.take(index)
    for k, row in enumerate(index.tolist()):
        i, j = matches.pairs[matches.pair[row]]
        assert (batch.frames_from[k], batch.frames_to[k]) == (i, j)
        np.testing.assert_array_equal(batch.source[k], matches.source[row])
        np.testing.assert_array_equal(batch.target[k], matches.target[row])
        assert batch.weight[k] == matches.weight[row] / np.float32(255)


def test_draws_follow_the_seed_and_reach_every_pair(matches: Correspondences) -> None:
    sampler = MatchSampler(matches, torch.device("cpu"))
    first, again = (sampler.draw(20_000, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.source, again.source)
    drawn = {(int(i), int(j)) for i, j in zip(first.frames_from, first.frames_to, strict=True)}
    assert drawn == {(int(i), int(j)) for i, j in matches.pairs[np.unique(matches.pair)]}
