"""A blendshape rig by its name on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .blendshapes import BlendshapeRig

BUILTIN = "builtin"


def open_rig(source: str, say: Callable[[str], None] | None = None) -> BlendshapeRig:
    """The rig that `source` names: "builtin", a GLB file, or a folder of OBJ files.

    `say` gets a line for all that an import corrects, misses or invents; the studio says it once, whoever reads the rig
    again for the same capture need not.
    """
    if source == BUILTIN:
        from .builtin_head import build_builtin_rig

        return build_builtin_rig()
    path = Path(source)
    if not path.exists():
        raise InputError(f"no rig at {source}; use builtin, a .glb file with morph targets, or a folder of .obj files")
    from .import_rig import import_rig

    return import_rig(path, say or (lambda line: None))


def name_rig(source: str) -> str:
    """`source` as a capture remembers it: a file by its whole path, so that training finds it from any folder."""
    return source if source == BUILTIN else str(Path(source).resolve())
