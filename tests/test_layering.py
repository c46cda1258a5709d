"""The house plan, read from the imports: downwards only, and one home for each library."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "avatar_viewer"
BASE = {"types", "errors", "action_units", "geometry", "config", "destinations"}
# Each room and what it may import, besides itself and the base.
ALLOWED = {
    "base": set(),
    "networks": set(),
    "avatar": {"networks"},
    "rendering": {"avatar", "networks"},
    # The side tower: training reads what the studio writes and measures itself, a report reads captures.
    "metrics": {"studio", "training", "rendering", "avatar", "networks"},
    "studio": {"training", "metrics", "rendering", "avatar", "networks"},
    "training": {"studio", "metrics", "rendering", "avatar", "networks"},
    "live": {"rendering", "avatar", "networks"},
    "gui": {"live", "rendering", "avatar", "networks"},
    "top": {"gui", "live", "training", "studio", "metrics", "rendering", "avatar", "networks", "top"},
}
HOMES = {
    "transformers": {"networks/speech.py"},
    "open_clip": {"networks/text_backbone.py"},
    "gsplat": {"rendering/gsplat_backend.py"},
    "dearpygui": {"gui/gate.py"},
    "pyrr": {"geometry.py"},
    "mitsuba": {"studio/renderer.py"},
    "parselmouth": {"studio/delivery.py"},
    "lpips": {"metrics/perceptual.py"},
}
HOME_ROOMS = {"sounddevice": "live", "av": "live", "threading": "live", "multiprocessing": "live", "queue": "live"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    if len(parts) > 1:
        return parts[0]
    return "base" if path.stem in BASE else "top"


def imports_of(path: Path) -> set[str]:
    """Every imported module, absolute, with in-function imports."""
    package = ("avatar_viewer",) + path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join(start + ((node.module,) if node.module else ()))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "avatar_viewer" or len(parts) < 2:
            continue
        target = parts[1] if (PACKAGE / parts[1]).is_dir() else ("base" if parts[1] in BASE else "top")
        if (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists():
            assert target in ALLOWED[room] | {room, "base"}, f"{room} may not import {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_library_has_one_home(path):
    here = path.relative_to(PACKAGE).as_posix()
    for name in imports_of(path):
        library = name.split(".")[0]
        assert here in HOMES.get(library, {here}), f"{library} lives in {HOMES[library]}, not in {here}"
        if library in HOME_ROOMS:
            allowed = {HOME_ROOMS[library]} | ({"avatar"} if library == "threading" else set())
            assert room_of(path) in allowed, f"{library} lives in {HOME_ROOMS[library]}/, not in {here}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_can_run_code_from_a_file(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert not imports_of(path) & {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "torch.load", "os.system"}, f"{name} in {path.name}"
            for keyword in node.keywords:
                literal = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                assert not (keyword.arg in {"allow_pickle", "shell", "trust_remote_code"} and literal is True)


def test_no_module_has_a_name_that_says_nothing():
    assert not [p for p in modules() if p.stem in {"utils", "common", "helpers", "misc", "manager"}]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_is_imported_from_the_package_is_there(path):
    """Inside functions too, where a missing name shows itself only to the user who comes that way."""
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "avatar_viewer" and len(parts) > 1 and module_file(parts) is None:
            owner = module_file(parts[:-1])
            assert owner is not None and parts[-1] in names_of(owner), f"{name}, which {path.name} imports, is nowhere"


def module_file(parts: list[str]) -> Path | None:
    place = PACKAGE.joinpath(*parts[1:])
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def names_of(path: Path) -> set[str]:
    """What a module defines at its top, under its conditions too."""
    found, blocks = set(), [ast.parse(path.read_text(encoding="utf-8")).body]
    while blocks:
        for node in blocks.pop():
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
            elif isinstance(node, (ast.If, ast.Try)):
                blocks += [node.body, node.orelse, getattr(node, "finalbody", [])]
                blocks += [handler.body for handler in getattr(node, "handlers", [])]
            if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":  # names that are loaded when asked for
                found |= {leaf.value for leaf in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(leaf, ast.Constant)}
    return found
