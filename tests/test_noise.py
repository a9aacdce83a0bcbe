"""Random numbers by counter: what the chapter does not try."""
import pytest
import torch

from robustacc.noise import counter_normal, counter_uniform


@pytest.mark.parametrize("draw", [counter_uniform, counter_normal])
def test_all_bits_of_seed_and_index_count(draw):
    index = torch.arange(4)
    first = draw(index, (3,), seed=5)
    assert torch.equal(first, draw(index, (3,), seed=5))
    for bit in (0, 1, 31, 32, 33, 62): assert not torch.isin(draw(index, (3,), seed=5 ^ 1 << bit), first).any(), f"bit {bit} of the seed"
    for bit in (2, 31, 32, 33, 62): assert not torch.isin(draw(index | 1 << bit, (3,), seed=5), first).any(), f"bit {bit} of the index"
