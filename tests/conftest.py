"""An avatar small enough to build in a second, in the real formats and through the real doors, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.binding import bind
from avatar_viewer.avatar.face import FaceTemplate
from avatar_viewer.types import GaussianRig, RigidGroup

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other

COLUMNS, ROWS = 15, 14  # of the face's grid of vertices
SLIT_ROW = 4  # the mouth lies between this row and the next
REST = 190  # Gaussians that are not the face


def make_tiny_face() -> FaceTemplate:
    """A bulging grid, 14 cm by 20 cm, with a slit for a mouth; 210 vertices."""
    across = torch.linspace(-0.07, 0.07, COLUMNS)
    upwards = torch.linspace(-0.10, 0.10, ROWS)
    y, x = torch.meshgrid(upwards, across, indexing="ij")
    z = 0.09 - 6.0 * x.square() - 2.0 * y.square()
    ids = torch.arange(COLUMNS * ROWS).view(ROWS, COLUMNS)
    corners = torch.stack((ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]), dim=-1)  # [13, 14, 4]
    is_skin = torch.ones(ROWS - 1, COLUMNS - 1, dtype=torch.bool)
    is_skin[SLIT_ROW, 5:9] = False
    quads = corners[is_skin]
    mouth = ids[SLIT_ROW - 1 : SLIT_ROW + 3, 4:11].flatten()
    brows, lids = ids[11:13, 2:13].flatten(), ids[9:11, 2:13].flatten()
    regions = {"lips": mouth, "jaw": ids[:3, 3:12].flatten(), "eyelids": lids, "upper_face": ids[8:].flatten()}
    regions |= {
        name: brows if name in AU_NAMES[:3] else lids if name in ("AU05", "AU06", "AU07", "AU45") else mouth for name in AU_NAMES
    }
    return FaceTemplate(
        neutral=torch.stack((x, y, z), dim=-1).reshape(-1, 3),
        faces=torch.cat((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]])),
        regions=regions,
        lip_upper=ids[SLIT_ROW + 1, 5:10],
        lip_lower=ids[SLIT_ROW, 5:10],
    )


def make_tiny_rig(face: FaceTemplate) -> GaussianRig:
    """400 Gaussians: the face, two eyes, lower teeth, and a shell of hair and skull behind."""
    generator = torch.Generator().manual_seed(5)
    count = len(face.neutral)
    shell = torch.nn.functional.normalize(torch.randn(REST, 3, generator=generator), dim=-1) * torch.tensor([0.08, 0.11, 0.08])
    shell[:, 2] = -shell[:, 2].abs()
    groups = (
        RigidGroup("eye_left", "head", (0.03, 0.03, 0.075), True),
        RigidGroup("eye_right", "head", (-0.03, 0.03, 0.075), True),
        RigidGroup("teeth_lower", "jaw", (0.0, -0.04, 0.06), False),
    )
    group_ids = torch.full((REST,), -1)
    for index, group in enumerate(groups):
        rows = slice(20 * index, 20 * index + 20)
        group_ids[rows] = index
        shell[rows] = torch.tensor(group.pivot) + 0.01 * torch.randn(20, 3, generator=generator)
    shell[60:90] = face.neutral[::7] + torch.tensor([0.0, 0.0, 0.003])  # brows and lashes: close to the skin
    vertices, weights = bind(shell, face.neutral)
    means = torch.cat((face.neutral, shell))
    quats = torch.nn.functional.normalize(torch.randn(count + REST, 4, generator=generator), dim=-1).half().float()
    return GaussianRig(
        means=means,
        quats=torch.nn.functional.normalize(quats, dim=-1),
        log_scales=torch.full((count + REST, 3), -4.75),
        opacity_logits=torch.full((count + REST,), 2.5),
        colors=(0.3 + 0.5 * torch.rand(count + REST, 3, generator=generator)).half().float(),
        num_face=count,
        binding_vertices=vertices,
        binding_weights=weights.half().float(),
        group_ids=group_ids,
        groups=groups,
    )


def randomise(network: torch.nn.Module, scale: float, seed: int = 0) -> None:
    """Weights that do something visible, the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def write_tiny_text_backbone(folder: Path) -> None:
    """A CLIP text tower in open_clip's own folder format: real vocabulary, 16 features, half a megabyte."""
    import json

    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
    from safetensors.torch import save_file

    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 32}
    model = CustomTextCLIP(embed_dim=16, vision_cfg=CLIPVisionCfg(**vision), text_cfg=CLIPTextCfg(**text))
    config = {"model_cfg": {"embed_dim": 16, "custom_text": True, "vision_cfg": vision, "text_cfg": text}}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


@pytest.fixture(scope="session")
def tiny_face() -> FaceTemplate:
    return make_tiny_face()


@pytest.fixture(scope="session")
def tiny_rig(tiny_face: FaceTemplate) -> GaussianRig:
    return make_tiny_rig(tiny_face)


@pytest.fixture(scope="session")
def tiny_avatar_folder(tmp_path_factory, tiny_face: FaceTemplate, tiny_rig: GaussianRig) -> Path:
    """A complete avatar on disk. Shared by all tests: copy it before changing anything."""
    from avatar_viewer.avatar.bundle import save_avatar
    from avatar_viewer.config import DEFAULT_STREAM
    from avatar_viewer.networks.appearance import AppearanceConfig, AppearanceDecoder
    from avatar_viewer.networks.au_encoder import AUEncoder, AUEncoderConfig
    from avatar_viewer.networks.denoiser import Denoiser, DenoiserConfig
    from avatar_viewer.networks.speech import create_speech_backbone
    from avatar_viewer.networks.text_to_au import TextToAU, TextToAUConfig

    torch.manual_seed(0)
    count = tiny_rig.num_face
    appearance = AppearanceDecoder(AppearanceConfig(count, hidden=8))
    randomise(appearance, 0.2)
    denoiser = Denoiser(DenoiserConfig(count, 32, basis_size=12, dim=24, layers=1, heads=2, feedforward=32, template_points=16))
    with torch.no_grad():
        denoiser.basis.copy_(torch.linalg.qr(torch.randn(count * 3, 12)).Q.T)
        denoiser.scale.fill_(0.01)
        denoiser.response_latents.copy_(torch.randn(17, 1, 12) * denoiser.response_levels[None, :, None] / 5)
    folder = tmp_path_factory.mktemp("avatars") / "tiny"
    write_tiny_text_backbone(folder / "text_backbone")
    save_avatar(
        folder,
        name="tiny",
        fps=25,
        stream=DEFAULT_STREAM,
        face=tiny_face,
        rig=tiny_rig,
        appearance=appearance,
        au_encoder=AUEncoder(
            AUEncoderConfig(
                32, dim=16, layers=2, heads=2, feedforward=24, head_hidden=16, expression_dim=8, expression_aus=("AU06", "AU12")
            )
        ),
        denoiser=denoiser,
        speech=create_speech_backbone(hidden=32, layers=2, heads=2, feed_forward=48, channels=(8, 12, 16), position_kernel=5),
        text=TextToAU(TextToAUConfig(feature_dim=16, hidden=8)),
        training={"rig": {"from": "random numbers, for tests"}},
    )
    return folder


@pytest.fixture(scope="session")
def tiny_avatar(tiny_avatar_folder: Path):
    """That avatar, loaded through the real door."""
    from avatar_viewer.avatar.bundle import load_avatar

    return load_avatar(tiny_avatar_folder)
