"""A blendshape rig by its name on the command line."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .blendshapes import BlendshapeRig

BUILTIN = "builtin"


def open_rig(source: str) -> BlendshapeRig:
    """The rig that `source` names: "builtin", a GLB file, or a folder of OBJ files."""
    if source == BUILTIN:
        from .builtin_head import build_builtin_rig

        return build_builtin_rig()
    path = Path(source)
    if not path.exists():
        raise InputError(f"no rig at {source}; use builtin, a .glb file with morph targets, or a folder of .obj files")
    from .import_rig import import_rig

    return import_rig(path)
