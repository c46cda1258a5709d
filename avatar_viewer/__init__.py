"""avatar_viewer: speech-driven, text-editable 3D Gaussian heads in real time.

Importing the package loads nothing heavy and needs no display, GPU, sound card or torchvision.
"""

__version__ = "0.1.0"
__all__ = ["Camera", "GaussianFrame", "load_avatar", "rasterize"]

_HOMES = {
    "load_avatar": "avatar_viewer.avatar.bundle",
    "rasterize": "avatar_viewer.rendering.rasterize",
    "GaussianFrame": "avatar_viewer.types",
    "Camera": "avatar_viewer.types",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'avatar_viewer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
