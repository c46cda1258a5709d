"""Where a command is to write: wrong places are told before any work, right ones pass, and looking leaves nothing behind."""

import pytest

from avatar_viewer.destinations import check_file_destination, check_folder_destination
from avatar_viewer.errors import InputError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


def names(place):
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize(
    "path, words",
    [
        ("folder.npz", "is a folder"),
        (".", "is a folder"),
        ("/", "is a folder"),
        ("speech.wav", "ending in .npz"),
        ("take", "ending in .npz"),
        ("nowhere/take.npz", "nowhere does not exist"),
        ("file/take.npz", "file is a file"),
    ],
)
def test_a_file_that_cannot_be_put_there_is_refused(place, path, words):
    before = names(place)
    with pytest.raises(InputError, match=words):
        check_file_destination(place.__class__(path), ".npz")
    assert names(place) == before


@pytest.mark.parametrize("path", ["take.npz", "TAKE.NPZ", "ü space.npz", "folder.npz/take.npz"])
def test_a_new_file_may_be_put_there(place, path):
    check_file_destination(place.__class__(path), ".npz")


def test_folders_may_be_made_on_the_way_to_a_file(place):
    check_file_destination(place / "new" / "newer" / "sheet.png", ".png", makes_folders=True)
    with pytest.raises(InputError, match="file is a file"):
        check_file_destination(place / "file" / "newer" / "sheet.png", ".png", makes_folders=True)
    assert "new" not in names(place)


@pytest.mark.parametrize("path", ["new", "new/newer", ".", "folder.npz"])
def test_a_folder_may_be_new_or_there(place, path):
    check_folder_destination(place.__class__(path))
    assert "new" not in names(place)


@pytest.mark.parametrize("path", ["file", "file/deeper", "file/deeper/still", "dangling"])
def test_a_folder_is_not_made_of_a_file(place, path):
    with pytest.raises(InputError, match="is a file"):
        check_folder_destination(place.__class__(path))


def test_a_read_only_place_is_refused(place, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the superuser may write anywhere but on a read-only disk
    for check in (lambda: check_folder_destination(place / "new"), lambda: check_file_destination(place / "take.npz", ".npz")):
        with pytest.raises(InputError, match="read-only"):
            check()
