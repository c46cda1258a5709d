"""What `import avatar_viewer` does not load."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "open_clip", "torchvision", "dearpygui", "sounddevice", "gsplat", "numba", "av", "mitsuba")


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, avatar_viewer; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_help_of_the_command_line_loads_nothing_heavy():
    code = (
        "import sys\nfrom avatar_viewer.cli import main\n"
        f"try: main(['--help'])\nexcept SystemExit: pass\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
