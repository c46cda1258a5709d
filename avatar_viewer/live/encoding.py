"""The mp4 encoder: the child process behind `recorder.py`. It knows pictures by index and sound by count, and no clock.

The file is made so that a kill at any moment leaves a playable take: fragments of half a second, flushed at once, and a
plain mp4 after a clean end (`hybrid_fragmented`). `delay_moov` keeps AAC's priming out of the sound's timing: without it
the sound is 21 ms late.
"""

from __future__ import annotations

import os
from ctypes import Array, c_ubyte
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection

import numpy as np

from .spool import SpoolFormat, SpoolReader

_AUDIO_BLOCK = 1024  # sample frames an AAC packet
_SYNC_SECONDS = 0.5  # how much may be lost to a power cut


@dataclass(frozen=True)
class EncoderSettings:
    """Fixed when recording starts."""

    path: str
    width: int  # even
    height: int  # even
    fps: Fraction
    slots: int  # pictures in flight
    preset: str  # x264's
    quality: int  # x264's crf
    bframes: int
    sync_to_disk: bool


def encode_file(settings: EncoderSettings, pictures: Array[c_ubyte], sound: SpoolFormat | None, connection: Connection) -> None:
    """Entry of the child. Ends on "finish" (answers "done"), on "abort", or when the parent is gone (keeps the take)."""
    import signal

    import av

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent ends the take; if it dies, the pipe says so
    try:
        encoder = _Encoder(settings, pictures, sound, connection)
        encoder.run()
    except (av.FFmpegError, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        try:
            connection.send(("failed", " ".join(text.split())[:200]))
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
        options = {"movflags": "+hybrid_fragmented+delay_moov", "frag_duration": "500000", "flush_packets": "1"}
        self._container = av.open("file:" + settings.path, "w", format="mp4", options=options)
        self._video = self._add_video()
        self._sound = SpoolReader(sound) if sound else None
        self._audio = self._add_audio(sound) if sound else None
        self._reformatter = VideoReformatter()
        self._last_picture = None
        self._next_index = 0
        self._heard = 0  # sample frames encoded
        self._file_number = os.open(settings.path, os.O_RDONLY)
        self._synced_index = 0

    def _add_video(self):
        settings = self._settings
        stream = self._container.add_stream("libx264", rate=settings.fps)
        codec = stream.codec_context
        codec.width, codec.height = settings.width, settings.height
        codec.pix_fmt = "yuv420p"
        codec.time_base = 1 / settings.fps
        codec.thread_count = 1
        codec.gop_size = max(1, round(2 * settings.fps))
        codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc = 1, 1, 1, 1  # limited, BT.709
        codec.options = {"preset": settings.preset, "crf": str(settings.quality), "bf": str(settings.bframes), "threads": "1"}
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
            except EOFError:  # the parent is gone: close the take as it stands
                message = ("finish", self._next_index)
            if message[0] == "frame":
                _, slot, index, heard = message
                self._encode_picture(slot, index)
                self._encode_sound(heard, last=False)
                self._sync()
                self._connection.send(("free", slot, self._next_index, os.fstat(self._file_number).st_size))
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

    def _sync(self) -> None:
        if self._settings.sync_to_disk and (self._next_index - self._synced_index) >= _SYNC_SECONDS * self._settings.fps:
            self._synced_index = self._next_index
            os.fsync(self._file_number)

    def _close(self) -> None:
        if self._sound is not None:
            self._encode_sound(self._sound.count, last=True)
            self._container.mux(self._audio.encode(None))
        self._container.mux(self._video.encode(None))
        self._container.close()
        size = os.fstat(self._file_number).st_size
        os.fsync(self._file_number)
        os.close(self._file_number)
        try:
            self._connection.send(("done", self._next_index, size))
        except (BrokenPipeError, OSError):
            pass


def available_encoders() -> tuple[str, ...]:
    """Those of the encoders that a recording may use that this machine's FFmpeg has."""
    import av

    found = []
    for name in ("libx264", "h264_nvenc", "aac"):
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        found.append(name)
    return tuple(found)
