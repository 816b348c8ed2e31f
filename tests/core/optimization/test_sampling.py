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


def test_a_round_deals_every_match_once_and_the_next_begins_where_it_ends(matches: Correspondences) -> None:
    sampler = MatchSampler(matches, torch.device("cpu"))
    count = len(matches) // 3 - 7
    deck, again = (sampler.shuffled(count, torch.Generator().manual_seed(1)) for _ in range(2))
    dealt = [deck.deal(step) for step in range(4)]
    assert all(len(batch) == count for batch in dealt)
    rows = torch.cat([torch.cat([b.frames_from[:, None], b.frames_to[:, None], b.source, b.target], 1) for b in dealt])
    everything = sampler.take(torch.arange(len(sampler)))
    wanted = torch.cat(
        [everything.frames_from[:, None], everything.frames_to[:, None], everything.source, everything.target], 1
    )
    assert sorted(rows[: len(matches)].tolist()) == sorted(wanted.tolist())
    assert torch.equal(rows[len(matches) :], rows[: len(rows) - len(matches)])
    assert torch.equal(dealt[2].target, again.deal(2).target)
    assert not torch.equal(dealt[0].target, sampler.shuffled(count, torch.Generator().manual_seed(2)).deal(0).target)


def test_a_batch_is_of_all_pairs_and_in_their_order(matches: Correspondences) -> None:
    sampler = MatchSampler(matches, torch.device("cpu"))
    batch = sampler.shuffled(len(matches) // 2, torch.Generator().manual_seed(1)).deal(0)
    rows = {(int(i), int(j)): row for row, (i, j) in enumerate(matches.pairs)}
    dealt = [rows[int(i), int(j)] for i, j in zip(batch.frames_from, batch.frames_to, strict=True)]
    assert dealt == sorted(dealt)
    assert set(dealt) == set(matches.pair.tolist())


def test_few_matches_are_dealt_again_within_a_batch(matches: Correspondences) -> None:
    deck = MatchSampler(matches, torch.device("cpu")).shuffled(2 * len(matches) + 5, torch.Generator().manual_seed(1))
    batch = deck.deal(3)
    assert len(batch) == 2 * len(matches) + 5
    assert torch.equal(batch.target[: len(matches)], batch.target[len(matches) : 2 * len(matches)])
