"""Equations 9 to 11 by hand."""

from __future__ import annotations

import torch

from avatar_viewer.training.losses import au_activity_loss, au_loss, au_regression_loss, au_temporal_loss

CODES = torch.tensor([[0.0, 1.0], [2.0, 1.0], [2.0, 4.0]])  # [T 3, K 2]
TRUTH = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])


def test_equation_9_is_the_mean_absolute_error():
    # |0-1| + |1-1| + |2-2| + |1-0| + |2-0| + |4-2| = 6 over 6 entries
    torch.testing.assert_close(au_regression_loss(CODES, TRUTH), torch.tensor(1.0))


def test_equation_10_is_the_mean_squared_step():
    # steps: (2, 0) and (0, 3): 4 + 0 + 0 + 9 = 13 over 4 entries
    torch.testing.assert_close(au_temporal_loss(CODES), torch.tensor(13 / 4))


def test_equation_10_has_nothing_to_say_of_a_single_frame():
    assert au_temporal_loss(CODES[:1]) == 0


def test_equation_11_weighs_them_one_to_a_tenth():
    torch.testing.assert_close(au_loss(CODES, TRUTH), torch.tensor(1.0 + 0.1 * 13 / 4))
    torch.testing.assert_close(au_loss(CODES, TRUTH, 2.0, 1.0), torch.tensor(2.0 + 13 / 4))


def test_activity_is_the_cross_entropy_of_the_softplus_argument():
    """softplus(0.5413) = 1: at the threshold a unit at rest costs ln 2, an active one twice that; away from it ln(1 + exp(+-2 (x - 0.5413)))."""
    at = torch.full((1, 1), 1.0)
    torch.testing.assert_close(au_activity_loss(at, torch.tensor([[3.0]])), 2 * torch.tensor(2.0).log())
    torch.testing.assert_close(au_activity_loss(at, torch.tensor([[0.2]])), torch.tensor(2.0).log())
    x = torch.tensor(1.7)
    codes = torch.nn.functional.softplus(x).view(1, 1)
    expected = torch.nn.functional.softplus(2 * (x - 0.541325))
    torch.testing.assert_close(au_activity_loss(codes, torch.tensor([[0.2]])), expected, rtol=1e-4, atol=1e-4)


def test_activity_pulls_a_unit_that_has_sunk_to_nothing_as_hard_as_any():
    x = torch.tensor([[-8.0]], requires_grad=True)
    au_activity_loss(torch.nn.functional.softplus(x), torch.tensor([[3.0]])).backward()
    assert x.grad.item() < -3
