"""An avatar: one head with everything that moves it, loaded from a folder, checked, and saved.

Loading is strict and patient: structure, names, shapes, dtypes, finiteness, ranges, sizes and sha256 are all checked, and
one `InputError` lists everything that is wrong. A public backbone that this machine does not have is no fault: it is
named in `Avatar.missing`, and the rest works. Pickle is never read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import StreamContext
from ..errors import InputError
from ..networks.appearance import AppearanceConfig, AppearanceDecoder
from ..networks.au_encoder import AUEncoder, AUEncoderConfig
from ..networks.denoiser import Denoiser, DenoiserConfig
from ..networks.diffusion import SAMPLERS
from ..networks.speech import SpeechBackbone, load_speech_backbone, save_speech_backbone
from ..networks.text_backbone import load_text_backbone
from ..networks.text_to_au import TextToAU, TextToAUConfig
from ..types import GaussianRig
from .face import FaceTemplate, read_face, save_face
from .late_text import LateTextBackbone, read_feature_dim
from .manifest import (
    BACKBONES,
    BUNDLED,
    MANIFEST,
    check_files,
    config_from_json,
    config_to_json,
    empty_manifest,
    read_manifest,
    seal,
)
from .rig import read_rig, save_rig
from .tensor_files import read_tensor_file, write_tensor_file

MAX_WEIGHT = 1e4  # no trained weight of these networks comes near it
NEUTRAL_TOLERANCE = 1e-5  # metres between the face mesh and the means of the face Gaussians


@dataclass(frozen=True)
class Avatar:
    """Everything that one head needs, in memory, in float32, in evaluation mode."""

    folder: Path
    name: str
    fps: float
    stream: StreamContext
    face: FaceTemplate
    rig: GaussianRig
    appearance: AppearanceDecoder
    speech: SpeechBackbone | None  # None: see `missing`
    au_encoder: AUEncoder
    denoiser: Denoiser
    text: TextToAU | None  # None: see `missing`
    missing: tuple[str, ...]  # one line for each public backbone that this machine lacks
    manifest: dict[str, Any]

    def prepare(self) -> None:
        """Load what otherwise loads at its first use, the text tower: two seconds that no frame should wait for."""
        backbone = self.text.backbone if self.text is not None else None
        if isinstance(backbone, LateTextBackbone):
            backbone.prepare()

    def to(self, device: torch.device | str) -> Avatar:
        """The same avatar on another device; networks are moved in place, as torch does it."""
        for network in (self.appearance, self.speech, self.au_encoder, self.denoiser, self.text):
            if isinstance(network, nn.Module):
                network.to(device)
        regions = {name: region.to(device) for name, region in self.face.regions.items()}
        face = FaceTemplate(**(_moved(self.face, device) | {"regions": regions}))
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return Avatar(**(values | {"face": face, "rig": GaussianRig(**_moved(self.rig, device))}))


def _moved(value: Any, device: torch.device | str) -> dict[str, Any]:
    found = {item.name: getattr(value, item.name) for item in fields(value)}
    return {name: item.to(device) if isinstance(item, Tensor) else item for name, item in found.items()}


def load_avatar(folder: str | Path, *, on_look: Callable[[Avatar], None] | None = None) -> Avatar:
    """The avatar in `folder`, checked; one `InputError` lists everything that is wrong with it.

    `on_look` is given the head without its voice and text as soon as it can be drawn: the libraries that hear and read take
    two seconds to import.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"avatar {folder}: no such folder")
    faults: list[str] = []
    avatar = _read_avatar(folder, faults, on_look)
    if avatar is None or faults:
        count = f"{len(faults)} faults: " if len(faults) > 1 else ""
        raise InputError(f"avatar {folder} cannot be used: {count}{'; '.join(faults)}")
    return avatar


def load_network(folder: str | Path, key: str) -> nn.Module:
    """One network of an avatar that need not be complete yet: "au_encoder", "denoiser" ...; `InputError` says what is wrong."""
    folder, faults = Path(folder), []
    manifest = read_manifest(folder, faults)
    network = None
    if manifest is not None:
        network = _read_network(folder, key, *_network_classes()[key], manifest, faults)
    if network is None or faults:
        raise InputError(f"avatar {folder}: no usable {key}: {'; '.join(faults)}")
    return network


def save_avatar(
    folder: str | Path,
    *,
    name: str | None = None,
    fps: float | None = None,
    stream: StreamContext | None = None,
    face: FaceTemplate | None = None,
    rig: GaussianRig | None = None,
    appearance: AppearanceDecoder | None = None,
    au_encoder: AUEncoder | None = None,
    denoiser: Denoiser | None = None,
    text: TextToAU | None = None,
    speech: SpeechBackbone | str | None = None,  # a public name is noted, not copied
    text_backbone: str | Path | None = None,  # a public name is noted, a folder is copied
    training: dict[str, Any] | None = None,  # how the parts given here were trained and from what
) -> None:
    """Write the parts given here and seal the folder; what is not given stays as it is on disk.

    So each training stage saves its own part, and the last one completes the avatar. `InputError` where the folder cannot be
    written. `training` is merged, key by key, into the record of `avatar.json`.
    """
    folder = Path(folder)
    manifest = _manifest_to_continue(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write the avatar's folder {folder}: {error.strerror}") from error
    manifest |= {key: value for key, value in (("name", name), ("fps", fps)) if value is not None}
    if stream is not None:
        manifest["stream"] = config_to_json(stream)
    if face is not None:
        save_face(face, folder / "face.safetensors")
    if rig is not None:
        save_rig(rig, folder / "rig.safetensors")
    for key, network in (("appearance", appearance), ("au_encoder", au_encoder), ("denoiser", denoiser), ("text_to_au", text)):
        if network is not None:
            _write_network(folder, key, network, manifest)
    if isinstance(speech, str):
        manifest["speech_backbone"] = speech
    elif speech is not None:
        save_speech_backbone(speech, folder / "speech_backbone")
        manifest["speech_backbone"] = BUNDLED
    if isinstance(text_backbone, str):
        shutil.rmtree(folder / "text_backbone", ignore_errors=True)  # the head no longer fits the one that was bundled
        manifest["text_backbone"] = text_backbone
    elif text_backbone is not None:
        _copy_folder(text_backbone, folder / "text_backbone")
        manifest["text_backbone"] = BUNDLED
    manifest["training"] = manifest["training"] | (training or {})
    seal(folder, manifest)


def _manifest_to_continue(folder: Path) -> dict[str, Any]:
    """The folder's manifest, or a fresh one; `InputError` where the folder holds a damaged one, which is not overwritten."""
    if not (folder / MANIFEST).exists():
        return empty_manifest(folder.resolve().name, 25, StreamContext())
    faults: list[str] = []
    manifest = read_manifest(folder, faults)
    if manifest is None:
        raise InputError(f"avatar {folder} is damaged, so nothing was added to it: {'; '.join(faults)}; choose another folder")
    return manifest


def _copy_folder(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise InputError(f"cannot copy {source} to {target}: {' '.join(str(error).split())[:160]}") from error


def _write_network(folder: Path, key: str, network: nn.Module, manifest: dict[str, Any]) -> None:
    """Matrices in float16, everything of one dimension (norms, biases, scales) in float32: it is small and sensitive."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        half = tensor.is_floating_point() and tensor.dim() > 1
        tensors[name] = (tensor.half() if half else tensor).contiguous().clone()
    entry = {"class": type(network).__name__, "config": config_to_json(network.config)}
    # In the file too, under its fingerprint: a changed head count or context in avatar.json changes no shape.
    write_tensor_file(folder / f"{key}.safetensors", tensors, {"config": json.dumps(entry["config"], sort_keys=True)})
    manifest["networks"][key] = entry


# ------------------------------------------------------------------------------------------------------------ reading


def _read_avatar(folder: Path, faults: list[str], on_look: Callable[[Avatar], None] | None) -> Avatar | None:
    manifest = read_manifest(folder, faults)
    if manifest is None:
        return None
    check_files(folder, manifest, faults)
    whole = {name for name, record in manifest["files"].items() if _has_size(folder / name, record["bytes"])}
    face = read_face(folder / "face.safetensors", faults) if "face.safetensors" in whole else None
    rig = read_rig(folder / "rig.safetensors", faults) if "rig.safetensors" in whole else None
    networks = {
        key: _read_network(folder, key, kind, config_kind, manifest, faults)
        for key, (kind, config_kind) in _network_classes().items()
        if f"{key}.safetensors" in whole
    }
    if face is not None and rig is not None:
        _check_fit(face, rig, networks, faults)
    _check_backbone_weights(folder, manifest, faults)
    if faults:
        return None
    look = Avatar(
        folder=folder,
        name=manifest["name"],
        fps=float(manifest["fps"]),
        stream=StreamContext(**manifest["stream"]),
        face=face,
        rig=rig,
        appearance=networks["appearance"],
        speech=None,
        au_encoder=networks["au_encoder"],
        denoiser=networks["denoiser"],
        text=None,
        missing=(),
        manifest=manifest,
    )
    if on_look is not None:
        on_look(look)
    missing: list[str] = []
    speech = _read_speech(folder, manifest, networks, faults, missing)
    text = _read_text(folder, manifest, networks["text_to_au"], faults, missing)
    return None if faults else replace(look, speech=speech, text=text, missing=tuple(missing))


def _network_classes() -> dict[str, tuple[type[nn.Module], type]]:
    return {
        "appearance": (AppearanceDecoder, AppearanceConfig),
        "au_encoder": (AUEncoder, AUEncoderConfig),
        "denoiser": (Denoiser, DenoiserConfig),
        "text_to_au": (TextToAU, TextToAUConfig),
    }


def _read_speech(
    folder: Path, manifest: dict[str, Any], networks: dict[str, nn.Module | None], faults: list[str], missing: list[str]
) -> SpeechBackbone | None:
    name, local = manifest["speech_backbone"], folder / "speech_backbone"
    try:
        backbone = load_speech_backbone(local if name == BUNDLED or local.is_dir() else name)
    except InputError as error:
        (faults if name == BUNDLED or local.is_dir() else missing).append(str(error))
        return None
    for key in ("au_encoder", "denoiser"):
        wanted = networks[key].config.speech_dim
        if wanted != backbone.feature_dim:
            faults.append(
                f"speech backbone {backbone.name}: gives {backbone.feature_dim} features, {key} was trained for {wanted}"
            )
    return backbone.requires_grad_(False)


def _read_text(
    folder: Path, manifest: dict[str, Any], head: nn.Module | None, faults: list[str], missing: list[str]
) -> TextToAU | None:
    name, local = manifest["text_backbone"], folder / "text_backbone"
    if name != BUNDLED and not local.is_dir():
        try:
            return head.attach(load_text_backbone(name))
        except InputError as error:
            missing.append(str(error))
            return None
    feature_dim = read_feature_dim(local, faults)
    if feature_dim is None:
        return None
    try:
        return head.attach(LateTextBackbone(local, feature_dim))
    except InputError as error:
        faults.append(str(error))
        return None


def _check_backbone_weights(folder: Path, manifest: dict[str, Any], faults: list[str]) -> None:
    """Structure and finiteness of the bundled backbones' files; their names and shapes are their libraries' business."""
    for relative, record in manifest["files"].items():
        if relative.startswith(BACKBONES) and relative.endswith(".safetensors") and _has_size(folder / relative, record["bytes"]):
            file = read_tensor_file(folder / relative, faults, label=relative)
            for name in file.tensors if file is not None else ():
                file.check_finite(name, faults)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _read_network(
    folder: Path, key: str, kind: type[nn.Module], config_kind: type, manifest: dict[str, Any], faults: list[str]
) -> nn.Module | None:
    label, file_name = f"{MANIFEST}: networks.{key}", f"{key}.safetensors"
    file = read_tensor_file(folder / file_name, faults)
    entry = manifest["networks"].get(key)
    if entry is None:
        faults.append(f"{label}: missing")
        return None
    if entry["class"] != kind.__name__:
        faults.append(f"{label}.class is {str(entry['class'])[:40]!r}, expected {kind.__name__!r}")
    config = config_from_json(config_kind, entry["config"], f"{label}.config", faults)
    if file is None or config is None:
        return None
    if file.metadata.get("config") != json.dumps(entry["config"], sort_keys=True):
        faults.append(f"{label}.config is not the one that {file_name} was saved with")
    before = len(faults)
    skeleton = _build(kind, config, "meta", label, faults)  # first without memory: a wrong config must not take all of it
    if skeleton is None:
        return None
    expected = {}
    for name, tensor in skeleton.state_dict().items():
        dtypes = (torch.float16, torch.float32) if tensor.is_floating_point() else (tensor.dtype,)
        expected[name] = (tuple(tensor.shape), dtypes)
    file.check_tensors(expected, faults)
    for name, tensor in file.tensors.items():
        if tensor.is_floating_point():
            file.check_range(name, -MAX_WEIGHT, MAX_WEIGHT, faults)
    if len(faults) > before:
        return None
    network = _build(kind, config, "cpu", label, faults)
    if network is None:
        return None
    network.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in file.tensors.items()}
    )
    return network.eval().requires_grad_(False)


def _build(kind: type[nn.Module], config: Any, device: str, label: str, faults: list[str]) -> nn.Module | None:
    try:
        with torch.device(device):
            return kind(config)
    except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError, IndexError, KeyError) as error:
        faults.append(f"{label}: no network can be built from this config ({' '.join(str(error).split())[:120]})")
        return None


def _check_fit(face: FaceTemplate, rig: GaussianRig, networks: dict[str, nn.Module | None], faults: list[str]) -> None:
    """Parts that were trained for each other have the same sizes."""
    count = len(face.neutral)
    if rig.num_face != count:
        faults.append(f"rig.safetensors: {rig.num_face} face Gaussians for a face of {count} vertices")
    elif (rig.means[:count] - face.neutral).abs().max() > NEUTRAL_TOLERANCE:
        faults.append("rig.safetensors: the face Gaussians do not sit on the vertices of face.safetensors")
    appearance, denoiser = networks.get("appearance"), networks.get("denoiser")
    if appearance is not None and appearance.config.num_face != rig.num_face:
        faults.append(f"appearance.safetensors: made for {appearance.config.num_face} face Gaussians, the rig has {rig.num_face}")
    if denoiser is not None and denoiser.config.sampler not in SAMPLERS:
        faults.append(
            f"{MANIFEST}: networks.denoiser: unknown sampler {denoiser.config.sampler[:40]!r}; known: {', '.join(SAMPLERS)}"
        )
    if denoiser is not None and not 1 <= denoiser.config.rows <= denoiser.config.diffusion_steps:
        faults.append(
            f"{MANIFEST}: networks.denoiser: rows is {denoiser.config.rows}, expected 1 to {denoiser.config.diffusion_steps}"
        )
    if denoiser is not None and denoiser.config.num_vertices != count:
        faults.append(f"denoiser.safetensors: made for {denoiser.config.num_vertices} vertices, the face has {count}")
