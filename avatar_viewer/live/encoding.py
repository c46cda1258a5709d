"""The mp4 encoder: the child process behind `recorder.py`. It knows pictures by index and sound by count, and no clock.

The file is made so that a kill at any moment leaves a playable take: fragments of half a second, flushed and synced at
once, and a plain mp4 after a clean end (`hybrid_fragmented`). `delay_moov` keeps AAC's priming out of the sound's timing:
without it the sound is 21 ms late. The end of a live take is also packed here (`take_file.py`), off the frame loop.
"""

from __future__ import annotations

import os
from ctypes import Array, c_ubyte
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from .spool import SpoolFormat, SpoolReader
from .take_file import pack_take
from .take_folder import HEARD, LOG, PICTURE, SPEECH, TakeFolder

_AUDIO_BLOCK = 1024  # sample frames an AAC packet
_SYNC_SECONDS = 0.5  # how much may be lost to a power cut
_NVENC_SIDES = (160, 4096)  # pixels a side that every NVENC takes for H.264


@dataclass(frozen=True)
class EncoderSettings:
    """Fixed when recording starts."""

    video: Path  # the file that the take becomes; until then it is in its `TakeFolder`
    width: int  # even
    height: int  # even
    fps: Fraction
    slots: int  # pictures in flight
    preset: str  # x264's
    quality: int  # x264's crf
    bframes: int
    is_live: bool  # synced to disk on the way, and encoded by the graphics card where it can


def encode_file(settings: EncoderSettings, pictures: Array[c_ubyte], sound: SpoolFormat | None, connection: Connection) -> None:
    """Entry of the child. Ends on "finish" (answers "done"), on "abort", or when the parent is gone (keeps the take)."""
    import signal

    import av

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent ends the take; if it dies, the pipe says so
    try:
        encoder = _Encoder(settings, pictures, sound, connection)
        connection.send(("ready", encoder.codec_name))
        encoder.run()
    except (av.FFmpegError, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        _tell(connection, ("failed", " ".join(text.split())[:200]))


def _tell(connection: Connection, message: tuple) -> None:
    """Where somebody still listens."""
    try:
        connection.send(message)
    except (BrokenPipeError, OSError):
        pass


class _Encoder:
    def __init__(self, settings: EncoderSettings, pictures: Array[c_ubyte], sound: SpoolFormat | None, connection: Connection) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._av = av
        self._settings = settings
        self._connection = connection
        shape = (settings.slots, settings.height, settings.width, 3)
        self._pictures = np.frombuffer(pictures, dtype=np.uint8).reshape(shape)
        self._folder = TakeFolder(settings.video)
        self._folder.hold()
        options = {"movflags": "+hybrid_fragmented+delay_moov", "frag_duration": "500000", "flush_packets": "1"}
        self._container = av.open(f"file:{self._folder / PICTURE}", "w", format="mp4", options=options)
        self._video = self._add_video()
        self._sound = SpoolReader(sound) if sound else None
        self._audio = self._add_audio(sound) if sound else None
        self._reformatter = VideoReformatter()
        self._last_picture = None
        self._next_index = 0
        self._heard = 0  # sample frames encoded
        self._file_number = os.open(self._folder / PICTURE, os.O_RDWR | os.O_CREAT, 0o644)
        self._synced_index = 0

    @property
    def codec_name(self) -> str:
        return self._video.codec_context.name

    def _add_video(self):
        settings = self._settings
        if settings.is_live and has_nvenc(settings.width, settings.height):
            stream = self._container.add_stream("h264_nvenc", rate=settings.fps)
            stream.codec_context.options = {"preset": "p4", "rc": "vbr", "cq": str(settings.quality), "bf": "0"}
        else:
            stream = self._container.add_stream("libx264", rate=settings.fps)
            options = {"preset": settings.preset, "crf": str(settings.quality), "bf": str(settings.bframes), "threads": "1"}
            stream.codec_context.options = options
        codec = stream.codec_context
        codec.width, codec.height = settings.width, settings.height
        codec.pix_fmt = "yuv420p"
        codec.time_base = 1 / settings.fps
        codec.thread_count = 1
        codec.gop_size = max(1, round(2 * settings.fps))
        codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc = 1, 1, 1, 1  # limited, BT.709
        return stream

    def _add_audio(self, sound: SpoolFormat):
        stream = self._container.add_stream("aac", rate=sound.rate)
        stream.codec_context.layout = "stereo" if sound.channels == 2 else "mono"
        stream.codec_context.bit_rate = 160_000
        stream.codec_context.time_base = Fraction(1, sound.rate)
        return stream

    def run(self) -> None:
        keep_going = True
        while keep_going:
            try:
                message = self._connection.recv()
            except (EOFError, ConnectionResetError):  # the parent is gone: close the take as it stands
                message = ("finish", max(self._next_index, self._pictures_heard()))
            if message[0] == "frame":
                _, slot, index, heard = message
                self._encode_picture(slot, index)
                self._encode_sound(heard, last=False)
                self._sync()
                _tell(self._connection, ("free", slot, self._next_index, os.fstat(self._file_number).st_size))
            elif message[0] == "sound":
                self._encode_sound(message[1], last=False)
            elif message[0] == "finish":
                self._repeat_until(message[1])
                self._close()
                keep_going = False
            else:
                self._container.close()
                keep_going = False

    def _encode_picture(self, slot: int, index: int) -> None:
        self._repeat_until(index)
        picture = self._av.VideoFrame.from_ndarray(self._pictures[slot], format="rgb24")
        self._last_picture = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1
        )
        self._put_picture(index)

    def _repeat_until(self, index: int) -> None:
        while self._last_picture is not None and self._next_index < index:
            self._put_picture(self._next_index)

    def _put_picture(self, index: int) -> None:
        frame = self._last_picture
        frame.pts, frame.time_base = index, 1 / self._settings.fps
        self._container.mux(self._video.encode(frame))
        self._next_index = index + 1

    def _encode_sound(self, heard: int, *, last: bool) -> None:
        """Encode the sound up to `heard` sample frames, in whole packets unless it is the last."""
        if self._sound is None:
            return
        while heard - self._heard >= _AUDIO_BLOCK or (last and heard > self._heard):
            count = min(_AUDIO_BLOCK, heard - self._heard)
            samples = self._sound.read(self._heard, count)
            frame = self._av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=self._audio.codec_context.layout.name)
            frame.sample_rate = self._sound.format.rate
            frame.pts, frame.time_base = self._heard, Fraction(1, self._sound.format.rate)
            self._container.mux(self._audio.encode(frame))
            self._heard += count

    def _pictures_heard(self) -> int:
        """How many whole pictures the sound lasts."""
        return int(self._sound.count * self._settings.fps / self._sound.format.rate) if self._sound else 0

    def _sync(self) -> None:
        if self._settings.is_live and (self._next_index - self._synced_index) >= _SYNC_SECONDS * self._settings.fps:
            self._synced_index = self._next_index
            os.fsync(self._file_number)
            for name in (HEARD, SPEECH, LOG):
                _sync_file(self._folder / name)

    def _close(self) -> None:
        if self._sound is not None:
            self._encode_sound(self._sound.count, last=True)
            self._container.mux(self._audio.encode(None))
        self._container.mux(self._video.encode(None))
        self._container.close()
        size = os.fstat(self._file_number).st_size
        os.fsync(self._file_number)
        os.close(self._file_number)
        _tell(self._connection, ("written", self._next_index, size))
        trouble = ""
        if (self._folder / LOG).exists():
            try:
                pack_take(self._folder, lambda: _tell(self._connection, ("busy",)))
            except OSError as error:  # the picture is safe, and what was to be packed stays where it is
                trouble = error.strerror or str(error)
        _tell(self._connection, ("done", trouble))


def _sync_file(path: Path) -> None:
    try:
        number = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)


def has_nvenc(width: int, height: int) -> bool:
    """The graphics card encodes pictures of this size; found out by opening its encoder."""
    import av

    if not all(_NVENC_SIDES[0] <= side <= _NVENC_SIDES[1] for side in (width, height)):
        return False
    try:
        trial = av.CodecContext.create("h264_nvenc", "w")
        trial.width, trial.height, trial.pix_fmt, trial.time_base = width, height, "yuv420p", Fraction(1, 25)
        trial.open()
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True


def available_encoders() -> tuple[str, ...]:
    """Those of the encoders that a recording needs that this machine's FFmpeg has."""
    import av

    found = []
    for name in ("libx264", "aac"):
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        found.append(name)
    return tuple(found)
