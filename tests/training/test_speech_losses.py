"""Equations 9 to 11 by hand."""

from __future__ import annotations

import torch

from avatar_viewer.training.losses import au_loss, au_regression_loss, au_temporal_loss

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
