"""`python -m avatar_viewer`: the same commands as `avatar-viewer`."""

import sys

from .cli import main

sys.exit(main())
