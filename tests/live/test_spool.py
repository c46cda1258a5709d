import numpy as np

from avatar_viewer.live.spool import SharedFields, SpoolFormat, SpoolReader, SpoolWriter


def ramp(start, count, channels=2):
    return (np.arange(start, start + count)[:, None] * channels + np.arange(channels)).astype(np.int16)


def test_what_is_written_is_read_and_the_rest_is_silence(tmp_path):
    spool = SpoolFormat(str(tmp_path / "s"), 48_000, 2, "int16")
    writer, reader = SpoolWriter(spool), SpoolReader(spool)
    assert reader.count == 0 and not reader.read(0, 10).any()
    writer.append(ramp(0, 700))
    writer.append(ramp(700, 300))
    assert reader.count == 1000
    assert np.array_equal(reader.read(650, 100), ramp(650, 100))
    tail = reader.read(990, 20)
    assert np.array_equal(tail[:10], ramp(990, 10)) and not tail[10:].any()
    assert not reader.read(-20, 10).any()


def test_a_ring_keeps_the_newest_across_its_seam(tmp_path):
    spool = SpoolFormat(str(tmp_path / "s"), 16_000, 1, "float32", ring_frames=100)
    writer, reader = SpoolWriter(spool), SpoolReader(spool)
    values = np.arange(1, 351, dtype=np.float32)[:, None]
    for start in range(0, 350, 70):
        writer.append(values[start : start + 70])
    assert (reader.count, reader.oldest) == (350, 250)
    assert np.array_equal(reader.read(260, 90), values[260:350])
    old = reader.read(240, 20)
    assert not old[:10].any() and np.array_equal(old[10:], values[250:260])


def test_fields_are_read_whole(tmp_path):
    writer = SharedFields(tmp_path / "f", ("frame", "heard_at"), create=True)
    reader = SharedFields(tmp_path / "f", ("frame", "heard_at"))
    assert reader.read() == {"frame": 0.0, "heard_at": 0.0}
    writer.publish(frame=7.0, heard_at=1.5)
    assert reader.read() == {"frame": 7.0, "heard_at": 1.5}
