"""`jepa embed` on what users bring: odd names, links, folders that cannot be written, hours of video."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import jepa
from jepa.config import UserError
from jepa.encoders.video_vit import VideoViT
from jepa.models.model import imported, save
from jepa_data.shards.encode import encode_mp4
from jepa_probes.embedding.embed import embed
from jepa_probes.embedding.write import EncodedVideo, kind_of, writer_of

SIDE, FPS = 32, 4.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save(
        imported("meta", VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), SIDE, 4), fps=FPS),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return encode_mp4(np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8), FPS)


def test_odd_names_do_not_end_the_job(
    model: Path, mp4: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "in"
    (source / "folder.mp4").mkdir(parents=True)
    (source / "folder.mp4" / "inner.mp4").write_bytes(mp4)
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.mp4")).write_bytes(mp4)
    (source / "line\nend.mp4").write_bytes(mp4)
    (source / "z.mp4").write_bytes(mp4)
    (source / "empty.mp4").touch()
    (source / "gone.mp4").symlink_to(tmp_path / "nowhere")
    for out in ("x.npz", "x.parquet", "shards"):
        caplog.clear()
        assert embed(source, model, tmp_path / out) == 4
        said = "\n".join(caplog.messages)
        assert "left out: empty.mp4: " in said and "gone.mp4 (broken link)" in said and "4 file(s), 1 left out" in said
        said.encode("utf-8")
    names = {name for name in np.load(tmp_path / "x.npz").files if not name.endswith(".seconds")}
    assert names == {r"caf\xe9.mp4", r"line\nend.mp4", "z.mp4", "folder.mp4/inner.mp4"}


def test_linked_folders_are_followed_once(
    model: Path, mp4: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").write_bytes(mp4)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert embed(tmp_path / "in", model, tmp_path / "x.npz") == 1
    assert "link/a.mp4" in np.load(tmp_path / "x.npz").files
    assert any("links to folders that were read already" in line for line in caplog.messages)


def test_a_folder_that_cannot_be_written_is_said_before_the_work(mp4: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(mp4)
    (tmp_path / "file").write_text("not a folder")
    for out in ("file/x.npz", "file/deep/x.parquet", "file/shards"):
        with pytest.raises(UserError, match=r"nothing can be written.*\(Not a directory\)"):
            embed(tmp_path / "a.mp4", tmp_path / "no model", tmp_path / out)


@pytest.mark.parametrize("out", ["x.npz", "x.parquet", "shards"])
def test_finished_work_is_kept_when_the_job_is_stopped(
    model: Path, mp4: bytes, tmp_path: Path, out: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(mp4)

    def stop(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("left out"):
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(logging.getLogger("jepa_probes.embedding.embed"), "filters", [stop])
    (tmp_path / "b.mp4").write_bytes(b"damaged")
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, model, tmp_path / "out" / out)
    assert "what was embedded until then, 1 file(s), is in" in caplog.messages[-1]
    left = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert left == {"x.npz": ["x.incomplete.npz"], "x.parquet": ["x.incomplete.parquet"]}.get(
        out, ["features-000000.tar"]
    )
    if out == "x.npz":
        assert "a.mp4" in np.load(tmp_path / "out" / "x.incomplete.npz").files


def test_a_video_that_breaks_off_leaves_nothing_of_itself(tmp_path: Path) -> None:
    def parts():
        yield np.ones((2, 2, 3, 4), np.float32)
        raise UserError("it ends here")

    for out in ("x.npz", "x.parquet", "shards"):
        with writer_of(tmp_path / out, kind_of(tmp_path / out, None)) as writer:
            writer.add(EncodedVideo("whole", np.zeros(2, np.float32), 0.5, iter([np.ones((1, 2, 3, 4), np.float32)])))
            with pytest.raises(UserError, match="it ends here"):
                writer.add(EncodedVideo("broken", np.zeros(8, np.float32), 0.5, parts()))
            assert not writer.failed and writer.count == 1
            writer.close()
    assert set(np.load(tmp_path / "x.npz").files) == {"whole", "whole.seconds"}


def test_latents_that_wait_on_disk_are_the_same(model: Path, mp4: bytes, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.mp4").write_bytes(mp4)
    for name, limit in (("memory", 2**26), ("disk", 1)):
        monkeypatch.setattr("jepa_probes.embedding.write.IN_MEMORY", limit)
        embed(tmp_path / "a.mp4", model, tmp_path / f"{name}.npz")
    assert (tmp_path / "memory.npz").read_bytes() == (tmp_path / "disk.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "disk.npz", "memory.npz"]


def test_a_long_video_is_read_once_and_in_blocks(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is decoded twice, and no more than a block is held."""
    from jepa_data.decode.pyav import PyAVReader

    video = np.random.default_rng(0).integers(0, 256, (160, SIDE, SIDE, 3), dtype=np.uint8)
    (tmp_path / "a.mp4").write_bytes(encode_mp4(video, FPS, gop=250, crf=40))
    monkeypatch.setattr("jepa_data.preprocessing.BLOCK_FRAMES", 8)
    decoded: list[int] = []
    close = PyAVReader.close
    monkeypatch.setattr(PyAVReader, "close", lambda self: (decoded.append(self.decoded), close(self))[1])
    loaded = jepa.load(model)
    with loaded.open_video(tmp_path / "a.mp4") as file:
        blocks = [tuple(block.shape[:2]) for block in file.clips(4)]
    assert blocks == [(2, 4)] * 20 and max(decoded) == 160
    assert loaded.encode(tmp_path / "a.mp4").shape == (1, 80, 16, 24)


MEASURE = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from jepa_probes.embedding.embed import embed
for source, out in zip(sys.argv[2::2], sys.argv[3::2]):
    embed(Path(source), sys.argv[1], Path(out))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "seconds"), [("640x360", 3600), ("1920x1080", 1800)])
def test_hours_of_video_are_embedded_in_bounded_memory(model: Path, tmp_path: Path, size: str, seconds: int) -> None:
    for name, length in (("short", 4), ("long", seconds)):
        source = f"testsrc2=size={size}:rate=8:duration={length}"
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast"]
        subprocess.run([*command, "-crf", "45", "-g", "120", str(tmp_path / f"{name}.mp4")], check=True)
    files = [str(tmp_path / name) for name in ("short.mp4", "short.npz", "long.mp4", "long.npz")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), *files], capture_output=True, text=True, env=environment, check=True
    )
    before, after = (int(line) for line in ran.stdout.split())
    assert after - before < 2**20, f"{(after - before) / 2**10:.0f} MiB more"  # KiB
    with np.load(tmp_path / "long.npz") as table:
        assert len(table["long.mp4"]) == seconds * FPS / 2
