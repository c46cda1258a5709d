import pytest
import torch
from virtual_devices import sound_server  # noqa: F401


@pytest.fixture(autouse=True)
def one_thread():
    """As the live product runs; and tests that wait for threads must not fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
