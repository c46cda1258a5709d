"""Machine code on disk is only as good as its stamp."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = {
    "__init__.py": "",
    "kernel_cache.py": (Path(__file__).parents[2] / "avatar_viewer/rendering/kernel_cache.py").read_text(encoding="utf-8"),
    "helper.py": "import numba\n\n\n@numba.njit\ndef amount():\n    return 1\n",
    "work.py": (
        "from .helper import amount\nfrom .kernel_cache import kernel\n\n\n"
        "@kernel()\ndef total(n):\n    return n * amount()\n\n\n"
        "print(total(10), sum(total.stats.cache_hits.values()))\n"
    ),
}


def run(folder: Path) -> list[str]:
    command = [sys.executable, "-c", "import room.work"]
    environment = {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), "PATH": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    for name, text in SOURCES.items():
        (tmp_path / "room" / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_kernel_is_compiled_once_and_again_when_a_helper_in_another_file_changes(room):
    assert run(room) == ["10", "0"]
    assert run(room) == ["10", "1"]  # from the disk
    helper = room / "room" / "helper.py"
    helper.write_text(helper.read_text(encoding="utf-8").replace("return 1", "return 7"), encoding="utf-8")
    assert run(room) == ["70", "0"]
