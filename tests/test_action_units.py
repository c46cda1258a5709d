"""Action units are joined by name, never by position."""

import numpy as np
import pytest

from avatar_viewer.action_units import AU_NAMES, OPENFACE_AU_NAMES, au_index, reorder
from avatar_viewer.errors import InputError


def test_an_openface_table_reaches_the_right_muscles():
    values = np.arange(17, dtype=np.float32)[None]
    codes, missing, unused = reorder(values, OPENFACE_AU_NAMES)
    assert missing == ("AU24",) and unused == ("AU20",)
    assert codes[0, AU_NAMES.index("AU23")] == OPENFACE_AU_NAMES.index("AU23")
    assert codes[0, AU_NAMES.index("AU24")] == 0


def test_any_order_of_columns_gives_the_same_codes():
    order = np.random.default_rng(0).permutation(17)
    values = np.random.default_rng(1).random((4, 17), dtype=np.float32)
    codes, missing, unused = reorder(values[:, order], [AU_NAMES[i] for i in order])
    assert np.array_equal(codes, values) and not missing and not unused


@pytest.mark.parametrize("name", ["AU12", "au12", "12", " AU12 "])
def test_a_name_may_be_written_in_several_ways(name):
    assert AU_NAMES[au_index(name)] == "AU12"


@pytest.mark.parametrize("name", ["AU13", "AU20", "smile", "", "AU²"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match="AU01.*AU45"):
        au_index(name)
