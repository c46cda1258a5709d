"""The sheet of prompts: a tile a prompt and degree, drawn from what the avatar's own reader found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from avatar_viewer.action_units import NUM_AUS, au_index
from avatar_viewer.avatar.bundle import Avatar
from avatar_viewer.geometry import orbit_camera
from avatar_viewer.metrics.prompt_sheet import DEGREES, draw_prompt_sheet
from avatar_viewer.networks.prompt_reading import PromptReading, neutral_reading


class Reader:
    """Finds AU12 in "smile", more of it in "very smile", nothing in other prompts."""

    def read(self, prompt: str) -> PromptReading:
        if "smile" not in prompt:
            return neutral_reading("no smile")
        intensity = torch.zeros(NUM_AUS)
        intensity[au_index("AU12")] = {"slightly smile": 1.0, "smile": 3.0, "very smile": 5.0}[prompt]
        return PromptReading(intensity > 0, (intensity > 0).float(), intensity, (), "")


def test_a_row_a_prompt_and_a_column_a_degree(tmp_path, tiny_avatar: Avatar):
    avatar = replace(tiny_avatar, text=Reader())
    camera = orbit_camera(0, 0, 1.0, 17, 48, 48, (0.0, -0.01, 0.0))
    draw_prompt_sheet(avatar, ["smile", "\ud800 stone"], tmp_path / "new" / "sheet.png", camera)
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    height = sheet.shape[0] // 2
    assert sheet.shape == (2 * height, len(DEGREES) * 48, 3) and height > 48
    smiles = [sheet[:48, 48 * n : 48 * (n + 1)] for n in range(3)]
    stones = [sheet[height : height + 48, 48 * n : 48 * (n + 1)] for n in range(3)]
    assert all((stone == stones[0]).all() for stone in stones)
    changes = [np.abs(smile.astype(int) - stones[0]).sum() for smile in smiles]
    assert 0 < changes[0] < changes[1] < changes[2]
