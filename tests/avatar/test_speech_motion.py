"""Sound to motion: any chunking gives the same bits, edits rule, faults are survived. Small fake networks, real plumbing."""

from types import SimpleNamespace

import pytest
import torch

from avatar_viewer.action_units import au_index
from avatar_viewer.avatar.edit_track import EditTrack
from avatar_viewer.avatar.speech_motion import SpeechMotion, join_windows, speak
from avatar_viewer.config import DEFAULT_STREAM, LOW_DELAY_STREAM
from avatar_viewer.errors import InputError
from avatar_viewer.networks.denoiser import Denoiser, DenoiserConfig
from avatar_viewer.types import AudioChunk, AUEdit

DIM = 6


class FakeSpeechStream:
    """Six loudness bands a value, from each value's own 400 samples."""

    def __init__(self, context):
        self.context, self.resets, self.broken = context, 0, False

    def reset(self):
        self.resets += 1

    def push(self, samples):
        count = self.context.hop_features + self.context.lookahead_features
        assert len(samples) == self.context.hop_samples + self.context.lookahead_samples
        fields = samples.unfold(0, 400, 320)[:count]
        features = torch.fft.rfft(fields).abs()[:, :60].unflatten(1, (DIM, 10)).mean(2).log1p()
        return features * float("nan") if self.broken else features


class FakeCodeStream:
    """Jaw drop from loudness; counts hops so that a missing reset shows."""

    def __init__(self, context, fps):
        self.frames = context.hop_frames(fps) + 2
        self.reset()

    def reset(self):
        self.hops = 0

    def push(self, features):
        self.hops += 1
        loudness = features.mean(1)[: self.frames * 2 : 2][: self.frames]
        loudness = torch.nn.functional.pad(loudness, (0, self.frames - len(loudness)))
        codes = torch.zeros(self.frames, 17)
        codes[:, au_index("AU26")] = (loudness * 3).clamp(0, 4)
        codes[:, au_index("AU01")] = 0.1 * min(self.hops, 5)
        return codes, (loudness * 5).clamp(0, 1)


@pytest.fixture(scope="module")
def avatar():
    torch.manual_seed(0)
    config = DenoiserConfig(
        num_vertices=30, speech_dim=DIM, basis_size=8, dim=32, layers=2, heads=2, feedforward=64, template_points=4
    )
    net = Denoiser(config).eval()
    net.basis.copy_(torch.linalg.qr(torch.randn(90, 8))[0].T)
    net.scale.fill_(0.01)
    torch.nn.init.normal_(net.codes_to_latents.weight, std=1.0)
    streams = []

    def speech_stream(context):
        streams.append(FakeSpeechStream(context))
        return streams[-1]

    return SimpleNamespace(
        name="fake", fps=25.0, stream=DEFAULT_STREAM, missing=(), denoiser=net, streams=streams,
        speech=SimpleNamespace(stream=speech_stream), au_encoder=SimpleNamespace(stream=FakeCodeStream),
        face=SimpleNamespace(neutral=torch.randn(30, 3) * 0.1),
    )  # fmt: skip


def a_sound(seconds, seed=1):
    generator = torch.Generator().manual_seed(seed)
    length = round(seconds * 16000)
    loudness = 0.5 + 0.5 * torch.sin(torch.arange(length) / 2500)
    return 0.3 * loudness * torch.randn(length, generator=generator)


def in_chunks(motion, samples, size):
    windows = []
    for start in range(0, len(samples), size):
        windows += motion.feed(AudioChunk(samples[start : start + size], start / 16000))
    return join_windows(windows + motion.finish())


def all_equal(a, b):
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("au_codes", "au_applied", "voice", "offsets", "gaze"))


@pytest.mark.parametrize("stream", [DEFAULT_STREAM, LOW_DELAY_STREAM])
def test_any_chunk_size_gives_the_bits_of_the_one_shot_answer(avatar, stream):
    samples, edits = a_sound(2.13), EditTrack()
    edits.add(0.7, AUEdit(offset=torch.full((17,), 0.5)))
    whole = speak(avatar, samples, edits, stream=stream)
    for milliseconds in (7, 40, 333):
        motion = SpeechMotion(avatar, edits, stream=stream)
        assert all_equal(in_chunks(motion, samples, milliseconds * 16), whole), milliseconds


@pytest.mark.parametrize("length", [1, 399, 640, 641, 3200, 4480, 4481, 16000, 33333])
def test_a_take_has_its_length_in_frames(avatar, length):
    window = speak(avatar, a_sound(length / 16000))
    assert len(window.offsets) == -(-length * 25 // 16000) == len(window.gaze) == len(window.voice)
    assert window.offsets.shape[1:] == (30, 3) and window.au_codes.shape[1:] == (17,)


def test_a_hop_appears_as_soon_as_its_look_ahead_is_heard(avatar):
    motion = SpeechMotion(avatar)
    assert motion.feed(AudioChunk(a_sound(1)[:4479], 0.0)) == []
    (window,) = motion.feed(AudioChunk(a_sound(1)[4479:4480], 0.0))
    assert window.start_seconds == 0.0 and len(window.offsets) == 5
    (window,) = motion.feed(AudioChunk(a_sound(1)[4480:7680], 0.0))
    assert window.start_seconds == pytest.approx(0.2)


def test_windows_follow_one_another_and_time_starts_where_it_is_told(avatar):
    motion = SpeechMotion(avatar)
    motion.reset(30.0)
    windows = motion.feed(AudioChunk(a_sound(1.5), 30.0)) + motion.finish()
    starts = [window.start_seconds for window in windows]
    assert starts == pytest.approx([30.0 + 0.2 * hop for hop in range(len(windows))])
    fresh = speak(avatar, a_sound(1.5), blinks=True)
    assert not torch.equal(join_windows(windows).gaze, fresh.gaze), "blinks and glances belong to session time"


def test_reset_is_a_new_object(avatar):
    motion, samples = SpeechMotion(avatar), a_sound(1.1)
    first = in_chunks(motion, samples, 1000)
    with pytest.raises(RuntimeError, match="finished"):
        motion.feed(AudioChunk(samples, 0.0))
    motion.reset()
    assert all_equal(in_chunks(motion, samples, 500), first)


def test_an_edit_takes_effect_in_the_next_hop_and_is_logged(avatar):
    smile = torch.zeros(17)
    smile[au_index("AU12")] = 4.0
    edits = EditTrack(ease_seconds=0.0)
    edits.add(0.45, AUEdit(offset=smile))
    motion, samples = SpeechMotion(avatar, edits, blinks=False), a_sound(1.2)
    edited, plain = in_chunks(motion, samples, 4000), speak(avatar, samples, blinks=False)
    assert torch.equal(edited.offsets[:15], plain.offsets[:15])
    assert not torch.allclose(edited.offsets[15:20], plain.offsets[15:20])
    assert edited.au_applied[15:, au_index("AU12")].eq(4.0).all() and edited.au_codes[:, au_index("AU12")].eq(0.0).all()
    assert [hop for hop, _ in motion.edit_log] == [0, 3]


def test_seeds_steps_and_guidance_matter_and_repeat(avatar):
    samples = a_sound(0.8)
    plain = speak(avatar, samples)
    assert all_equal(plain, speak(avatar, samples))
    for options in ({"seed": 1}, {"steps": 5}, {"guidance": 2.0}):
        other = speak(avatar, samples, **options)
        assert not torch.equal(other.offsets, plain.offsets), options
        assert all_equal(other, speak(avatar, samples, **options)), options


def test_blinks_are_codes_before_the_edit_and_can_be_left_out(avatar):
    samples, column = a_sound(8.0), au_index("AU45")
    without = speak(avatar, samples, blinks=False)
    assert without.au_codes[:, column].eq(0).all() and without.gaze.eq(0).all()
    blinking = speak(avatar, samples)
    assert blinking.au_codes[:, column].max() > 4
    muted = torch.zeros(17)
    muted[column] = 1
    still = speak(avatar, samples, EditTrack.constant(AUEdit(mute=muted)))
    assert still.au_codes[:, column].max() > 4 and still.au_applied[:, column].eq(0).all()


def test_in_silence_the_lips_codes_rest(avatar):
    window = speak(avatar, 1e-4 * torch.randn(16000, generator=torch.Generator().manual_seed(0)))
    assert window.voice.max() < 0.08 and window.au_codes[:, au_index("AU26")].eq(0).all()


class SilentCodeStream(FakeCodeStream):
    def push(self, features):
        codes, voice = super().push(features)
        return torch.zeros_like(codes), torch.zeros_like(voice)


def test_lasting_silence_is_the_neutral_face_and_stands_still(avatar):
    quiet = SimpleNamespace(**{**vars(avatar), "au_encoder": SimpleNamespace(stream=SilentCodeStream)})
    motion = SpeechMotion(quiet, blinks=False)
    raw = avatar.denoiser.decode_offsets(motion._rest).abs().max()
    silent = join_windows(motion.feed(AudioChunk(torch.zeros(80000), 0.0)))
    assert raw > 1e-4, "the network's own answer to silence is not quite neutral"
    assert silent.offsets[-10:].abs().max() < 0.01 * raw


def test_after_a_network_fault_the_pose_is_held_eased_to_rest_and_taken_up_again(avatar):
    motion, samples = SpeechMotion(avatar, blinks=False), a_sound(4.0)
    before = motion.feed(AudioChunk(samples[:16000], 0.0))
    motion._speech_stream.broken = True
    during = motion.feed(AudioChunk(samples[16000:32000], 1.0))
    assert motion.faults == 5 and motion._speech_stream.resets > 1
    motion._speech_stream.broken = False
    after = motion.feed(AudioChunk(samples[32000:], 2.0)) + motion.finish()
    assert motion.faults == 5
    pose, eased = before[-1].offsets[-1], join_windows(during)
    torch.testing.assert_close(eased.offsets[0], pose)
    assert eased.offsets[12:].abs().max() == 0 and eased.au_applied[12:].abs().max() == 0
    sizes = eased.offsets.flatten(1).norm(dim=1)
    assert bool((sizes.diff() <= 1e-6).all())
    whole = join_windows(before + during + after)
    assert len(whole.offsets) == 100 and bool(torch.isfinite(whole.offsets).all())
    assert after[-1].offsets.abs().max() > 0


def test_sound_that_is_not_a_number_is_heard_as_silence_and_counted(avatar):
    samples = a_sound(1.0)
    samples[5000:6000] = float("nan")
    samples[7000] = float("inf")
    motion = SpeechMotion(avatar)
    window = in_chunks(motion, samples, 1600)
    assert motion.bad_samples == 1001 and motion.faults == 0 and bool(torch.isfinite(window.offsets).all())


def test_memory_does_not_grow_with_the_take(avatar):
    motion = SpeechMotion(avatar)
    for _ in range(60):
        motion.feed(AudioChunk(a_sound(0.5), 0.0))
    assert motion._pending.untyped_storage().nbytes() <= 4 * 4480 and len(motion.edit_log) == 1


def test_wrong_use_is_one_clear_line(avatar):
    with pytest.raises(InputError, match="steps is 0; use 1 to 500"):
        SpeechMotion(avatar, steps=0)
    with pytest.raises(InputError, match="guidance is nan"):
        SpeechMotion(avatar, guidance=float("nan"))
    with pytest.raises(InputError, match="no samples"):
        speak(avatar, torch.zeros(0))
    lacking = SimpleNamespace(**{**vars(avatar), "speech": None, "missing": ("speech backbone x is not here",)})
    with pytest.raises(InputError, match="speech backbone x"):
        SpeechMotion(lacking)
    odd = SimpleNamespace(**{**vars(avatar), "fps": 24.0})
    with pytest.raises(InputError, match="whole frames"):
        SpeechMotion(odd)


def test_real_networks_give_the_same_bits_for_any_chunk_size(tiny_avatar):
    samples, edits = a_sound(1.3), EditTrack()
    edits.add(0.5, AUEdit(offset=torch.full((17,), 0.5)))
    whole = speak(tiny_avatar, samples, edits)
    assert whole.offsets.abs().max() > 0 and bool(torch.isfinite(whole.offsets).all())
    for milliseconds in (7, 40, 333):
        assert all_equal(in_chunks(SpeechMotion(tiny_avatar, edits), samples, milliseconds * 16), whole), milliseconds


def test_a_nan_in_any_network_is_survived(tiny_avatar):
    samples = a_sound(2.0)
    for network in ("speech", "au_encoder", "denoiser"):
        motion = SpeechMotion(tiny_avatar)
        windows = motion.feed(AudioChunk(samples[:16000], 0.0))
        weights = next(parameter for parameter in getattr(tiny_avatar, network).parameters() if parameter.dim() > 1)
        kept = weights.detach().clone()
        try:
            weights.data.fill_(float("nan"))
            windows += motion.feed(AudioChunk(samples[16000:20000], 1.0))
        finally:
            weights.data.copy_(kept)
        windows += motion.feed(AudioChunk(samples[20000:], 1.25)) + motion.finish()
        motions = join_windows(windows)
        assert motion.faults >= 1, network
        assert len(motions.offsets) == 50 and bool(torch.isfinite(motions.offsets).all()), network
