"""Both routes of the batched products against einsum."""

import pytest
import torch

from deq.linear.batched import PLAIN_LOOP, dots, subtract


@pytest.mark.parametrize("n", [1, 30, PLAIN_LOOP])
def test_products_agree_with_einsum(n, generator):
    vectors = torch.randn(3, 6, n, dtype=torch.float64, generator=generator)[:, :4]
    vector = torch.randn(3, n, dtype=torch.float64, generator=generator)
    weights = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    # Sums of at most n + 1 products of numbers of size about 1.
    close = {"rtol": 0, "atol": 10 * (n + 5) * torch.finfo(torch.float64).eps}
    torch.testing.assert_close(dots(vectors, vector), torch.einsum("bkn,bn->bk", vectors, vector), **close)
    expected = vector - torch.einsum("bk,bkn->bn", weights, vectors)
    torch.testing.assert_close(subtract(vector, weights, vectors), expected, **close)
