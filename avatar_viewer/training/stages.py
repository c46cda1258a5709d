"""The order of things: which stage needs what, and the two whole paths (`demo`, `all`).

Each stage reads the capture and the avatar's folder, and seals its own part into that folder; a stage that was
interrupted goes on from its checkpoint with `resume`, and in a whole path finished stages are not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import InputError

Stage = Callable[..., None]
# In the order of need: motion listens through the speech stage, appearance looks at the rig.
STAGES = ("rig", "speech", "motion", "appearance", "text")
ABLATED_STAGES = ("motion", "appearance")
SEEDED_STAGES = ("speech", "motion")
_DEFAULT_CAPTURE, _DEFAULT_OUT = Path("captures/demo"), Path("runs/demo")
_PROGRESS = "stages.json"  # which stages of a whole path are done; not part of the avatar


def run_stage(
    name: str,
    data: Path | None,
    out: Path | None,
    *,
    scale: str,
    resume: bool,
    device: str,
    ablation: str | None = None,
    speech_backbone: str | None = None,
    text_backbone: str | None = None,
    seed: int | None = None,
) -> None:
    """Run one stage, or all of them (`all`), or all of them on a capture of the built-in head (`demo`).

    `ablation` trains a stage's poorer network, for comparison. The backbones name a public network ("facebook/hubert-base-ls960",
    "ViT-B-32/openai") or a folder with one, another avatar's for instance, to be used as it is instead of a compact one
    trained here. `seed` draws another training of speech and motion, to see how far scores are chance.
    """
    if ablation is not None and name not in ABLATED_STAGES:
        raise InputError(f"train {name} has no ablation; {' and '.join(ABLATED_STAGES)} have")
    backbones = {"speech": speech_backbone, "text": text_backbone}
    for stage, backbone in backbones.items():
        if backbone is not None and name not in (stage, "all", "demo"):
            raise InputError(f"train {name} uses no {stage} backbone; {stage}, all and demo do")
    if seed is not None and name not in (*SEEDED_STAGES, "all", "demo"):
        raise InputError(f"train {name} takes no seed; {', '.join(SEEDED_STAGES)}, all and demo do")
    options: dict[str, dict[str, object]] = {stage: {} for stage in STAGES}
    for stage, backbone in backbones.items():
        options[stage] |= {"backbone": backbone} if backbone is not None else {}
    for stage in SEEDED_STAGES:
        options[stage] |= {"seed": seed} if seed is not None else {}
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError("--device cuda: torch finds no CUDA device; use auto or cpu")
    if name == "demo":
        data, out = data or _DEFAULT_CAPTURE, out or _DEFAULT_OUT
        _make_capture(data, scale)
        _run_all(data, out, scale, resume, device, options)
        return
    if out is None:
        raise InputError(f"train {name} needs --out FOLDER, the avatar's folder")
    if data is None and name != "text":
        raise InputError(f"train {name} needs --data CAPTURE, a folder made by `avatar-viewer studio`")
    if name == "all":
        _run_all(data, out, scale, resume, device, options)
    else:
        own = options[name] | ({} if ablation is None else {"ablation": ablation})
        _load_stage(name)(data, out, scale=scale, resume=resume, device=device, **own)


def _make_capture(data: Path, scale: str) -> None:
    from ..studio.capture import run_studio

    run_studio("builtin", data, scale, None, None)  # finished pictures are not made again


def _run_all(data: Path, out: Path, scale: str, resume: bool, device: str, options: dict[str, dict[str, object]]) -> None:
    done = _read_progress(out) if resume else {}
    for name in STAGES:
        if name in done:
            print(f"{name}: done before")
            continue
        began = time.monotonic()
        _load_stage(name)(data, out, scale=scale, resume=resume, device=device, **options[name])
        done[name] = round(time.monotonic() - began, 1)
        _write_progress(out, done)
    print("trained in " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in done.items()))


def _load_stage(name: str) -> Stage:
    return getattr(import_module(f"{__package__}.{name}"), f"train_{name}")


def _read_progress(out: Path) -> dict[str, float]:
    path = out / _PROGRESS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write_progress(out: Path, done: dict[str, float]) -> None:
    unfinished = out / f"{_PROGRESS}.tmp"
    unfinished.write_text(json.dumps(done), encoding="utf-8")
    unfinished.replace(out / _PROGRESS)
