"""Activations that come in groups are put in order by feature, without losing the order of the groups."""

import torch

from interp.study.by_feature import Places


def test_entries_are_sorted_by_feature_and_within_one_by_group():
    torch.manual_seed(0)
    groups = [torch.randint(7, (n,)).sort().values for n in (20, 0, 5, 40)]
    both = torch.cat(groups)
    places = Places(torch.bincount(both, minlength=9))
    at = torch.cat([places.of(*group.unique_consecutive(return_counts=True)) for group in groups])
    assert torch.equal(at.argsort(), both.argsort(stable=True))
    assert torch.equal(places.starts, torch.searchsorted(both.sort().values, torch.arange(10)))
