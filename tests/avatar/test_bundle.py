"""Avatars on disk: what is saved comes back, and whatever is wrong is one InputError that names all of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.bundle import load_avatar, save_avatar
from avatar_viewer.avatar.manifest import MANIFEST, read_manifest, seal
from avatar_viewer.errors import InputError
from avatar_viewer.networks.appearance import AppearanceConfig, AppearanceDecoder
from avatar_viewer.types import GaussianRig


@pytest.fixture
def folder(tiny_avatar_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_avatar_folder, tmp_path / "avatar"))


def reseal(folder: Path) -> None:
    """Make sizes and fingerprints right again, so that only the deeper checks can object."""
    faults: list[str] = []
    manifest = read_manifest(folder, faults)
    assert manifest is not None, faults
    seal(folder, manifest)


def rewrite(folder: Path, name: str, **changes: torch.Tensor | None) -> None:
    """Change, add or (None) drop tensors of a file, and seal it."""
    from safetensors import safe_open

    with safe_open(folder / name, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(folder / name) | changes
    save_file({key: value.contiguous() for key, value in tensors.items() if value is not None}, folder / name, metadata)
    reseal(folder)


def edit_manifest(folder: Path, change) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def fault(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_avatar(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------------------ the way


def test_an_avatar_comes_back_as_it_was_saved(tiny_avatar, tiny_rig, tiny_face):
    assert (tiny_avatar.name, tiny_avatar.fps, tiny_avatar.missing) == ("tiny", 25.0, ())
    assert torch.equal(tiny_avatar.rig.means, tiny_rig.means) and torch.equal(tiny_avatar.face.faces, tiny_face.faces)
    assert tiny_avatar.rig.groups == tiny_rig.groups and tiny_avatar.face.regions.keys() == tiny_face.regions.keys()
    torch.testing.assert_close(tiny_avatar.rig.quats, tiny_rig.quats, atol=1e-3, rtol=0)
    torch.testing.assert_close(tiny_avatar.rig.log_scales, tiny_rig.log_scales, atol=4e-3, rtol=0)
    assert tiny_avatar.speech.feature_dim == tiny_avatar.au_encoder.config.speech_dim == 32


def test_everything_in_memory_is_float32_frozen_and_in_evaluation_mode(tiny_avatar):
    for network in (tiny_avatar.appearance, tiny_avatar.au_encoder, tiny_avatar.denoiser, tiny_avatar.text):
        assert not network.training
        for parameter in network.parameters():
            assert parameter.dtype == torch.float32 and not parameter.requires_grad


def test_matrices_are_half_precision_on_disk_and_vectors_are_not(tiny_avatar_folder):
    stored = load_file(tiny_avatar_folder / "appearance.safetensors")
    assert stored["line.values"].dtype == torch.float16 and stored["opacity.mlp.first.bias"].dtype == torch.float32


def test_the_manifest_says_how_it_was_trained_and_names_action_units(tiny_avatar):
    assert tiny_avatar.manifest["training"] == {"rig": {"from": "random numbers, for tests"}}
    assert tiny_avatar.manifest["au_names"] == list(AU_NAMES)
    assert tiny_avatar.manifest["networks"]["denoiser"]["config"]["rows"] == 2


def test_a_stage_replaces_its_own_part_and_leaves_the_others(folder, tiny_avatar):
    decoder = AppearanceDecoder(AppearanceConfig(tiny_avatar.rig.num_face, hidden=12))
    save_avatar(folder, appearance=decoder, training={"appearance": {"steps": 3}})
    again = load_avatar(folder)
    assert again.appearance.config.hidden == 12 and again.name == "tiny"
    assert again.manifest["training"].keys() == {"rig", "appearance"}
    assert torch.equal(again.rig.means, tiny_avatar.rig.means)


def test_an_unfinished_avatar_says_which_commands_are_missing(tmp_path, tiny_rig, tiny_face):
    save_avatar(tmp_path / "half", name="half", face=tiny_face, rig=tiny_rig)
    message = fault(tmp_path / "half")
    for command in ("train appearance", "train speech", "train motion", "train text"):
        assert command in message


def test_saving_where_nothing_can_be_written_is_an_input_error(tmp_path, tiny_face, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_avatar(tmp_path / "file" / "avatar", face=tiny_face)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="damaged, so nothing was added"):
        save_avatar(folder, face=tiny_face)
    assert (folder / MANIFEST).read_text() == "{"


def test_an_avatar_can_be_moved_whole(tiny_avatar):
    moved = tiny_avatar.to("cpu")
    assert torch.equal(moved.rig.means, tiny_avatar.rig.means) and moved.face.regions.keys() == tiny_avatar.face.regions.keys()


# --------------------------------------------------------------------------------------------------- public backbones


def test_a_public_backbone_that_is_not_here_is_named_with_size_and_command_and_the_rest_loads(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nobody")
    for name in ("speech_backbone", "text_backbone"):
        shutil.rmtree(folder / name)
    edit_manifest(folder, lambda m: m.update(speech_backbone="facebook/hubert-base-ls960", text_backbone="ViT-B-32/openai"))
    reseal(folder)
    avatar = load_avatar(folder)
    assert avatar.speech is None and avatar.text is None and avatar.rig.num_gaussians == 400
    speech, text = avatar.missing
    assert "facebook/hubert-base-ls960" in speech and "378 MB" in speech and "hf download" in speech
    assert "ViT-B-32/openai" in text and "605 MB" in text and "hf download" in text


def test_a_backbone_of_another_width_is_refused(folder):
    config = json.loads((folder / "text_backbone/open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 24
    (folder / "text_backbone/open_clip_config.json").write_text(json.dumps(config))
    reseal(folder)
    assert "24 features" in fault(folder)


def test_a_pickle_is_never_read_and_its_conversion_is_named(folder):
    (folder / "speech_backbone" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    message = fault(folder)
    assert "pytorch_model.bin: pickle is never read" in message and "save_pretrained" in message


# ------------------------------------------------------------------------------------------------------------- damage


def test_a_folder_that_is_none_or_empty_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_avatar(tmp_path / "nowhere")
    assert "avatar.json: missing" in fault(tmp_path)


def test_missing_truncated_changed_and_unknown_are_all_named_at_once(folder):
    (folder / "rig.safetensors").unlink()
    whole = (folder / "denoiser.safetensors").read_bytes()
    (folder / "denoiser.safetensors").write_bytes(whole[: len(whole) // 2])
    changed = bytearray((folder / "face.safetensors").read_bytes())
    changed[-1] ^= 1
    (folder / "face.safetensors").write_bytes(changed)
    (folder / "text_backbone" / "open_clip_config.json").unlink()
    message = fault(folder)
    assert "5 faults" in message  # the changed byte also makes a region name a vertex that is not there
    for part in (
        "rig.safetensors: missing",
        "denoiser.safetensors: truncated",
        "face.safetensors: contents differ",
        "open_clip_config.json: missing",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("rig.safetensors", lambda t: {"means": t["means"].index_fill(0, torch.tensor([3]), float("nan"))}, "means holds 3"),
        ("rig.safetensors", lambda t: {"opacity_logits": t["opacity_logits"] + 100}, "opacity_logits runs from"),
        ("rig.safetensors", lambda t: {"log_scales": t["log_scales"] + 9}, "log_scales runs from"),
        ("rig.safetensors", lambda t: {"colors": t["colors"] * 3}, "colors runs from"),
        ("rig.safetensors", lambda t: {"quats": t["quats"] * 0}, "quats must have length 1"),
        ("rig.safetensors", lambda t: {"binding_vertices": t["binding_vertices"] + 200}, "binding_vertices runs from"),
        ("rig.safetensors", lambda t: {"binding_weights": t["binding_weights"] + 0.5}, "binding_weights of a Gaussian must sum"),
        ("rig.safetensors", lambda t: {"group_ids": t["group_ids"] + 9}, "group_ids runs from"),
        ("rig.safetensors", lambda t: {"quats": t["quats"][:7]}, r"quats has shape [7, 4], expected [400, 4]"),
        ("rig.safetensors", lambda t: {"quats": t["quats"].double()}, "quats is float64, expected float16"),
        ("rig.safetensors", lambda t: {"shine": t["means"]}, "unknown tensors: shine"),
        ("rig.safetensors", lambda t: {"colors": None}, "tensors missing: colors"),
        ("rig.safetensors", lambda t: {"means": t["means"] + 0.001}, "do not sit on the vertices"),
        ("face.safetensors", lambda t: {"faces": t["faces"] + 100}, "faces runs from"),
        ("face.safetensors", lambda t: {"lip_upper": t["lip_upper"][:2]}, "lip_lower has shape"),
        ("face.safetensors", lambda t: {"region.jaw": None}, "tensors missing: region.jaw"),
        ("appearance.safetensors", lambda t: {"line.values": t["line.values"][:, :9]}, "line.values has shape [17, 9, 16]"),
        ("au_encoder.safetensors", lambda t: {"codes.bias": t["codes.bias"] / 0}, "codes.bias holds"),
        ("denoiser.safetensors", lambda t: {"basis": t["basis"].float() * 1e6}, "basis runs from"),
        ("denoiser.safetensors", lambda t: {"head.bias": t["head.bias"].int()}, "head.bias is int32"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_named_even_when_the_seal_fits(folder, name, change, expected):
    rewrite(folder, name, **change(load_file(folder / name)))
    assert expected in fault(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.update(format_version=2), "version 2"),
        (lambda m: m.update(author="me"), "unknown keys: author"),
        (lambda m: m.pop("fps"), "keys missing: fps"),
        (lambda m: m.update(fps=0), "fps is 0"),
        (lambda m: m.update(fps="25"), "fps is a str"),
        (lambda m: m.update(fps=24), "no whole number of frames"),
        (lambda m: m["au_names"].reverse(), "au_names must be AU01"),
        (lambda m: m["stream"].update(hop_ms=-200), "hop_ms"),
        (lambda m: m["networks"]["denoiser"]["config"].update(layers=10**6), "layers"),
        (lambda m: m["networks"]["denoiser"]["config"].update(layers=3), "tensors missing: blocks.1"),
        (lambda m: m["networks"]["denoiser"]["config"].update(dim="24"), "dim: '24' is not a usable int"),
        (lambda m: m["networks"]["denoiser"]["config"].update(sampler="magic"), "sampler 'magic'"),
        (lambda m: m["networks"]["denoiser"]["config"].update(rows=0), "rows"),
        (lambda m: m["networks"]["denoiser"]["config"].update(dim=999_983), "has shape"),
        (lambda m: m["networks"]["au_encoder"]["config"].update(heads=0), "not the one that au_encoder.safetensors was"),
        (lambda m: m["networks"]["au_encoder"]["config"].update(speed=1), "unknown speed"),
        (lambda m: m["networks"]["au_encoder"].update({"class": "Other"}), "class is 'Other'"),
        (lambda m: m["networks"].pop("text_to_au"), "networks.text_to_au: missing"),
        (lambda m: m.update(speech_backbone="../../etc"), "speech_backbone is"),
        (lambda m: m["files"].update({"../secret": {"bytes": 1, "sha256": "0" * 64}}), "no part of an avatar"),
        (lambda m: m["files"].update({"rig.safetensors": {"bytes": 1}}), "must hold bytes and sha256"),
        (lambda m: m["files"].pop("rig.safetensors"), "rig.safetensors: not part of this avatar yet"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_named(folder, change, expected):
    edit_manifest(folder, change)
    assert expected in fault(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\x00", "[" * 100_000, '{"format": "avatar-viewer"}', '{"fps": NaN}'])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / MANIFEST).write_text(text)
    assert MANIFEST in fault(folder)


def test_any_damaged_byte_of_a_file_is_an_input_error(folder):
    random = np.random.default_rng(0)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    for n in range(80):
        path = folder / names[n % len(names)]
        whole = path.read_bytes()
        mutant = bytearray(whole)
        position = random.integers(min(len(whole), 600)) if n % 3 else random.integers(len(whole))  # headers are at the front
        mutant[position] ^= int(random.integers(1, 256))
        path.write_bytes(mutant)
        assert path.name in fault(folder)
        path.write_bytes(whole)


def test_any_damaged_byte_under_a_fitting_seal_is_an_input_error_or_a_sound_avatar(folder):
    random = np.random.default_rng(1)
    names = ["rig.safetensors", "face.safetensors", "appearance.safetensors", "au_encoder.safetensors", "denoiser.safetensors"]
    refused = 0
    for n in range(60):
        path = folder / names[n % len(names)]
        whole = path.read_bytes()
        mutant = bytearray(whole)
        mutant[random.integers(600)] ^= int(random.integers(1, 256))
        path.write_bytes(mutant)
        reseal(folder)
        try:
            load_avatar(folder)
        except InputError:
            refused += 1
        path.write_bytes(whole)
    assert refused > 20


def test_any_damaged_byte_of_the_manifest_is_an_input_error_or_a_sound_avatar(folder):
    random = np.random.default_rng(2)
    whole = (folder / MANIFEST).read_bytes()
    refused = 0
    for _ in range(120):
        mutant = bytearray(whole)
        position = int(random.integers(len(whole)))
        mutant[position] = int(random.choice(np.frombuffer(b'0123456789"{}[],:-.eaz \x00\xff', dtype=np.uint8)))
        (folder / MANIFEST).write_bytes(mutant)
        try:
            load_avatar(folder)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 60


def test_any_truncation_is_an_input_error(folder):
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for length in (0, 7, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            if not (path.name == MANIFEST and length == len(whole) - 1):  # only the last newline is gone
                assert path.name in fault(folder)
        path.write_bytes(whole)
    assert isinstance(load_avatar(folder).rig, GaussianRig)


@pytest.mark.parametrize(
    ("part", "settings"),
    [("denoiser", {"core": "diffusion", "hears_codes": True}), ("au_encoder", {"expression_dim": 0, "expression_aus": ()})],
)
def test_an_avatar_from_before_a_setting_came_loads_with_its_default(folder, part, settings):
    manifest = json.loads((folder / MANIFEST).read_text())
    config = manifest["networks"][part]["config"]
    for name in settings:
        del config[name]
    rewrite_metadata(folder / f"{part}.safetensors", json.dumps(config, sort_keys=True))
    (folder / MANIFEST).write_text(json.dumps(manifest))
    reseal(folder)
    found = getattr(load_avatar(folder), part).config
    assert {name: getattr(found, name) for name in settings} == settings


def rewrite_metadata(path: Path, config: str) -> None:
    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("expression.")}  # came later too
    save_file(tensors, path, {"config": config})


def test_the_look_comes_before_the_voice_and_only_from_a_sound_avatar(folder):
    looks = []
    avatar = load_avatar(folder, on_look=looks.append)
    assert len(looks) == 1 and looks[0].speech is None and looks[0].text is None and looks[0].rig is avatar.rig
    assert avatar.speech is not None and avatar.text is not None
    (folder / "rig.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError):
        load_avatar(folder, on_look=looks.append)
    assert len(looks) == 1


def test_the_look_needs_none_of_the_libraries_that_take_a_second_to_import(folder):
    code = (
        "import sys; from avatar_viewer.avatar.bundle import load_avatar\n"
        "slow = ('transformers', 'open_clip', 'torch._dynamo', 'sympy')\n"
        f"load_avatar({str(folder)!r}, on_look=lambda look: sys.exit([name for name in slow if name in sys.modules] or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
