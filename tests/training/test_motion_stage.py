"""The motion stage on a toy: data as in use, a tiny denoiser that obeys the codes under one and the same voice, resume."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avatar_viewer.action_units import au_index
from avatar_viewer.avatar.bundle import load_network
from avatar_viewer.avatar.face import FaceTemplate
from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM
from avatar_viewer.errors import InputError
from avatar_viewer.metrics.lips import correlation
from avatar_viewer.networks.denoiser import RESPONSE_LEVELS, frame_pooling
from avatar_viewer.studio.blendshapes import RIG_CHANNELS
from avatar_viewer.studio.performance import Performance, counterfactual
from avatar_viewer.studio.voices import Phone
from avatar_viewer.training import motion
from avatar_viewer.training.checkpoint import save_checkpoint
from avatar_viewer.training.motion import MotionSettings, MotionTrainer, evaluate
from avatar_viewer.training.motion_data import Clip, clip_codes, clip_offsets, lip_weights, pool_blocks, prepare_motion
from avatar_viewer.training.motion_scores import hear_clip, play

SETTINGS = MotionSettings(
    steps=260, batch=24, learning_rate=3e-3, warmup=20, dim=32, layers=1, basis_size=10, silent=4, test_clips=2
)


class BandBackbone(torch.nn.Module):
    """Twelve band energies a value, block-wise as the real backbone."""

    feature_dim = 12

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward_blocks(self, samples, context):
        bands = torch.fft.rfft(samples.unfold(1, 400, 320)).abs()[..., :96].unflatten(-1, (12, 8)).mean(-1)
        tokens = context.hop_features + context.lookahead_features
        hops = (samples.shape[1] - context.lookahead_samples) // context.hop_samples
        return (bands + 1e-2).log().unfold(1, tokens, context.hop_features)[:, :hops].transpose(2, 3)


def crude_rig():
    path = Path(__file__).parents[1] / "studio" / "crude_rig.py"
    spec = importlib.util.spec_from_file_location("crude_rig_for_motion", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_crude_rig(14, 14)


def a_performance(seed, seconds=4.0):
    """A mouth that opens with the loudness of a hiss, 25 fps."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * 25)
    knots = rng.uniform(0, 1, frames // 4 + 2) * (rng.random(frames // 4 + 2) > 0.3)
    curve = np.interp(np.arange(frames) / 4, np.arange(len(knots)), knots)
    values = np.zeros((frames, len(RIG_CHANNELS)), np.float32)
    values[:, RIG_CHANNELS.index("aa")] = curve
    envelope = np.interp(np.arange(frames * 640) / 640, np.arange(frames), curve)
    samples = (0.3 * envelope * rng.normal(size=frames * 640)).astype(np.float32)
    return Performance(25.0, values, RIG_CHANNELS, (Phone(0.0, seconds, "aa"),), samples, "hiss", "")


@pytest.fixture(scope="module")
def stage():
    torch.manual_seed(0)
    rig = crude_rig()
    # Its two brow shapes are parallel: least squares could not tell them apart.
    shapes = {name: shape for name, shape in rig.shapes.items() if name != "AU02"}
    rig = replace(rig, shapes=shapes, viseme_aus={"aa": {"AU25": 2.0, "AU26": 3.0}})
    clips = []
    for seed in range(8):
        performed = a_performance(seed)
        split = "train" if seed < 6 else "test"
        clips += [Clip(performed, split), Clip(counterfactual(performed, rig.viseme_aus, seed), split)]
    face = FaceTemplate(
        torch.from_numpy(rig.face.vertices), torch.from_numpy(rig.face.faces).long(),
        {name: torch.from_numpy(ids) for name, ids in rig.regions.items()},
        torch.from_numpy(rig.regions["lip_upper"]), torch.from_numpy(rig.regions["lip_lower"]),
    )  # fmt: skip
    train = [clip for clip in clips if clip.split == "train"]
    data = prepare_motion(
        train,
        face,
        rig,
        BandBackbone(),
        None,
        contexts=(DEFAULT_STREAM, LOW_DELAY_STREAM),
        basis_size=10,
        lookahead_frames=2,
        silent=4,
    )
    return rig, face, clips, data


@pytest.fixture(scope="module")
def trained(stage):
    _, face, _, data = stage
    trainer = MotionTrainer(data, face, BandBackbone.feature_dim, SETTINGS)
    trainer.run()
    return trainer.finished()


def test_a_window_holds_what_the_stream_will_hold(stage):
    _, face, _, data = stage
    trainer = MotionTrainer(data, face, 12, SETTINGS)
    for source, frames in zip(trainer.sources, (5, 2)):
        whole = source.gather(torch.arange(len(source)))
        assert whole.latents.shape[1:] == (10 + 2 * frames + 2, 10)
        assert whole.speech[0].shape == (len(source), 10 + frames + 2, 12)
        first = source.windows[:, 2].tolist().index(0)
        assert not whole.known[first, :10].any() and whole.known[first, 10:].all()
        third = first + 2
        assert whole.known[third, 10 - min(10, 2 * frames) :].all()
        # The look-ahead of the second window is heard within its own hop; its past is what the hops before said of themselves.
        sounds, row = source.sounds, int(source.windows[third, 1]) + 2
        torch.testing.assert_close(whole.speech[0][third, 10:], sounds.speech[row].float())
        torch.testing.assert_close(whole.speech[0][third, 10 - frames : 10], sounds.speech[row - 1, :frames].float())
        start = int(source.windows[third, 0]) + 2 * frames
        torch.testing.assert_close(whole.latents[third, 10:], data.tracks.latents[start : start + 2 * frames + 2])


def test_latents_are_the_rigs_offsets_and_codes_what_an_observer_sees(stage):
    rig, _, clips, data = stage
    offsets = clip_offsets(clips[1], rig)
    latents = torch.from_numpy(offsets.reshape(len(offsets), -1)) @ data.basis.rows.T
    back = (latents @ data.basis.rows).reshape(offsets.shape)
    assert float((back - torch.from_numpy(offsets)).norm(dim=-1).max()) < 1e-4  # metres
    codes, performance = clip_codes(clips[0], rig), clips[0].performance
    np.testing.assert_allclose(codes[:, au_index("AU26")], 3.0 * performance.values[:, RIG_CHANNELS.index("aa")], rtol=1e-5)


def test_a_capture_without_a_rig_brings_meshes_and_codes(stage):
    rig, face, clips, _ = stage
    meshed = [Clip(clip.performance, "train", clip_offsets(clip, rig), clip_codes(clip, rig)) for clip in clips[:2]]
    options = dict(contexts=(DEFAULT_STREAM,), basis_size=4, lookahead_frames=2)
    data = prepare_motion(meshed, face, None, BandBackbone(), None, **options)
    assert data.tracks.latents.shape[1] == 4 and len(data.train[0]) == 4, "two tracks, heard clean and disturbed"
    trainer = MotionTrainer(data, face, 12, replace(SETTINGS, basis_size=4))
    assert np.isfinite(trainer.step(0)["vertex"])


def test_tracks_are_remembered_for_the_same_clips_and_only_for_them(stage, tmp_path, monkeypatch):
    rig, face, clips, _ = stage
    options = dict(
        contexts=(DEFAULT_STREAM,),
        basis_size=10,
        lookahead_frames=2,
        silent=0,
        extra_tracks=1,
        cache=tmp_path / "tracks.safetensors",
    )
    first = prepare_motion(clips[:4], face, rig, BandBackbone(), None, **options)
    monkeypatch.setattr("avatar_viewer.training.motion_data.play_tracks", None)
    again = prepare_motion(clips[:4], face, rig, BandBackbone(), None, **options)
    for name, tensor in vars(first.tracks).items():
        assert torch.equal(tensor, getattr(again.tracks, name)), name
    assert again.train == first.train and torch.equal(again.basis.rows, first.basis.rows)
    with pytest.raises(TypeError):
        prepare_motion(clips[:3], face, rig, BandBackbone(), None, **options)


def test_pooled_blocks_equal_a_hop_by_hop_resampling():
    blocks, pooling = torch.randn(3, 13, 4), frame_pooling(DEFAULT_STREAM, 25.0, 7)
    pooled = pool_blocks(blocks, pooling, DEFAULT_STREAM)
    torch.testing.assert_close(pooled[1], pooling @ torch.cat((blocks[0, 9:10], blocks[1])))
    torch.testing.assert_close(pooled[0], pooling @ torch.cat((blocks[0, :1], blocks[0])))


def test_lip_frames_are_open_or_moving_ones_and_closures_weigh_most():
    gap = np.array([0, 0, 0, 0, 0, 0, 4, 4, 0.1, 4, 4, 4], float)
    weights = lip_weights(gap, np.ones(12), 25.0)
    assert weights[0] == 0 and weights[7] < 1.3 and weights[8] > 3.5
    assert lip_weights(gap, np.zeros(12), 25.0)[8] == 1.0


def test_the_mouth_follows_a_voice_that_training_never_heard(stage, trained):
    rig, face, clips, _ = stage
    clip = clips[12]
    heard = hear_clip(clip, rig, BandBackbone(), None, DEFAULT_STREAM, 7)
    template = trained.describe_template(face.neutral)
    track = play(trained, heard.speech[None], heard.true_codes[None], template)[0, :100]
    jaw, truth = (
        offsets[:, rig.regions["AU26"], 1].mean(axis=1)
        for offsets in (trained.decode_offsets(track).numpy(), clip_offsets(clip, rig))
    )
    assert correlation(jaw, truth) > 0.9


def test_the_codes_rule_under_the_same_voice(stage, trained):
    rig, face, clips, _ = stage
    heard = hear_clip(clips[12], rig, BandBackbone(), None, DEFAULT_STREAM, 7)
    template, column = trained.describe_template(face.neutral), au_index("AU12")
    smiling = heard.true_codes.clone()
    smiling[..., column] = 4.0
    plain, smile = (play(trained, heard.speech[None], codes[None], template)[0] for codes in (heard.true_codes, smiling))
    moved = trained.decode_offsets(smile - plain)[10:].mean(dim=0)
    wanted = torch.from_numpy(rig.shapes["AU12"]) * 0.8
    assert float((moved * wanted).sum() / wanted.square().sum()) == pytest.approx(1.0, abs=0.2)
    jaw = trained.decode_offsets(plain)[..., 1].amin(dim=-1) - trained.decode_offsets(smile)[..., 1].amin(dim=-1)
    assert float(jaw.abs().mean()) < 1.5e-3, "the smile leaves the jaw to the voice"


def test_the_instant_response_is_what_a_steady_code_brings_in_silence(stage, trained):
    rig, _, _, _ = stage
    codes = torch.zeros(17)
    codes[au_index("AU26")] = 4.0
    shape = torch.from_numpy(rig.shapes["AU26"]) * 0.8
    response = trained.response(codes)
    assert float((response * shape).sum() / shape.square().sum()) == pytest.approx(1.0, abs=0.2)
    assert trained.response_latents[:, 0].eq(0).all() and len(RESPONSE_LEVELS) == trained.response_latents.shape[1]


def test_scores_are_complete_and_sane(stage, trained):
    rig, face, clips, _ = stage
    scores = evaluate(trained, [clips[12]], [clips[13]], face, rig, BandBackbone(), None, DEFAULT_STREAM)
    assert set(scores) == {"true_codes", "counterfactual", "response", "edits"}
    assert scores["edits"]["slope_mean"] > 0.7 and scores["edits"]["lip_r_worst"] <= 1.0
    assert scores["true_codes"]["vertex_rmse_mm"] < 0.6 and scores["counterfactual"]["vertex_rmse_mm"] < 1.2
    assert 0.5 < scores["true_codes"]["seam_ratio"] < 1.5


def test_a_stopped_run_goes_on_to_the_same_weights(stage, tmp_path):
    _, face, _, data = stage
    short = replace(SETTINGS, steps=6)

    def trainer():
        return MotionTrainer(data, face, 12, short)

    whole = trainer()
    whole.run()
    first = trainer()
    first.settings = replace(short, steps=6)
    for step in range(3):
        first.step(step)
    save_checkpoint(tmp_path / "state.safetensors", first.denoiser, first.average, first.optimizer, 3)
    second = trainer()
    second.run(tmp_path / "state.safetensors", resume=True)
    for a, b in zip(whole.denoiser.parameters(), second.denoiser.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_stage_trains_from_a_capture_and_seals_the_avatars_part(stage, tiny_avatar_folder, tmp_path, monkeypatch):
    rig, face, clips, _ = stage
    out = tmp_path / "avatar"
    shutil.copytree(tiny_avatar_folder, out)
    sequences = []
    for number, clip in enumerate(clips[:2] + clips[12:14]):
        folder = tmp_path / f"sequence{number}"
        folder.mkdir()
        (folder / "phones.csv").write_text("start,end,phone\n0.0,4.0,aa\n")
        performance = clip.performance
        sequences.append(
            SimpleNamespace(
                folder=folder, split=clip.split, fps=25.0, kind=performance.kind, voice="hiss", emotion="",
                samples=performance.samples,
                phones=((0.0, 4.0, "aa"),), performance=(performance.values, performance.channels),
            )
        )  # fmt: skip
    capture = SimpleNamespace(
        name="hiss",
        rig_source="crude", neutral=face.neutral, faces=face.faces,
        regions=face.regions | {"lip_upper": face.lip_upper, "lip_lower": face.lip_lower},
        sequences=sequences, fps=25.0,
    )  # fmt: skip
    monkeypatch.setattr(motion, "open_capture", lambda data: capture)
    monkeypatch.setattr(motion, "open_rig", lambda source: rig)
    monkeypatch.setitem(motion.SCALES, "dev", replace(SETTINGS, steps=4, more_minutes=0.0, silent=2, test_clips=1))
    motion.train_motion(tmp_path, out, "dev", device="cpu")
    record = json.loads((out / "training" / "motion_scores.json").read_text())
    assert {"true_codes", "heard_codes", "counterfactual", "response", "edits"} <= set(record["scores"])
    denoiser = load_network(out, "denoiser")
    assert denoiser.config.num_vertices == len(face.neutral) and denoiser.response_latents[:, 1:].abs().max() > 0
    gram = denoiser.basis @ denoiser.basis.T
    torch.testing.assert_close(gram, torch.eye(10), atol=2e-3, rtol=0)
    assert json.loads((out / "avatar.json").read_text())["training"]["motion"]["scale"] == "dev"
    capture.neutral = face.neutral + 0.001  # another face
    with pytest.raises(InputError, match="record the capture again"):
        motion.train_motion(tmp_path, out, "dev", device="cpu")
    with pytest.raises(InputError, match="unknown scale"):
        motion.train_motion(tmp_path, out, "huge")


@pytest.mark.parametrize("name", ["no-aus", "gru"])
def test_an_ablated_network_trains_by_the_same_steps(stage, name):
    _, face, _, data = stage
    settings = replace(SETTINGS, steps=60, network=dict(motion.ABLATIONS[name]))
    trainer = MotionTrainer(data, face, BandBackbone.feature_dim, settings)
    first = np.mean([trainer.step(step)["rmse_mm"] for step in range(8)])
    trainer.run()
    last = np.mean([trainer.step(step)["rmse_mm"] for step in range(60, 68)])
    assert last < 0.9 * first


def test_an_unknown_ablation_is_named(tmp_path):
    with pytest.raises(InputError, match="no-aus and gru"):
        motion.train_motion(tmp_path, tmp_path, "dev", ablation="no-lips")
