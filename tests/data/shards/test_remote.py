"""Shards behind a web server: by range request, or whole into a bounded cache; servers that fail, lie or cut short."""

import hashlib
import importlib.util
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jepa_data.config import Access, StreamConfig
from jepa_data.errors import DataError, DecodeError
from jepa_data.shards.index import ShardSet
from jepa_data.shards.store import open_store
from jepa_data.stream.loader import make_loader

LENGTHS = [12, 20, 15, 30, 11, 9, 25, 14, 18, 10]
GIB = 2**30


class Server(ThreadingHTTPServer):
    """Serves the files of a folder, and misbehaves as it is told.

    Attributes:
        ranges: whether it honours range requests.
        fail: asked with the name of a file and how often it was requested; True: answer 500.
        cut: names of files of which only the first half is sent, as if that were all.
        asked: requests, by file; `sent`: bytes, by file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.ranges = folder, True
        self.fail: Callable[[str, int], bool] = lambda name, times: False
        self.cut: set[str] = set()
        self.asked, self.sent, self.paths = Counter[str](), Counter[str](), list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        server, path = self.server, self.server.folder / self.path.lstrip("/")
        server.paths.append(self.path)
        if body:
            server.asked[path.name] += 1
        if server.fail(path.name, server.asked[path.name]):
            return self.send_error(500)
        if not path.is_file():
            return self.send_error(404)
        data, status = path.read_bytes(), 200
        wanted = self.headers.get("Range")
        if wanted and server.ranges:
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            data, status = data[first : last + 1], 206
        if path.name in server.cut:
            data = data[: len(data) // 2]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(data)
            server.sent[path.name] += len(data)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, write_shards: Callable[..., Path]) -> Path:
    """Two corpora, `a` and `b`, whose files and samples have the same names."""
    folder = tmp_path_factory.mktemp("remote")
    write_shards(folder / "a", LENGTHS, shard_bytes=20_000)
    write_shards(folder / "b", LENGTHS[::-1], shard_bytes=20_000)
    return folder


@pytest.fixture
def server(corpora: Path, tmp_path: Path) -> Iterator[Server]:
    """Of a copy of the corpora, which a test may change."""
    shutil.copytree(corpora, tmp_path / "served")
    with Server(tmp_path / "served") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def config(shards: str, tmp_path: Path, workers: int = 0, **remote: Any) -> StreamConfig:
    access = {"cache": str(tmp_path / "cache"), "attempts": 2, "timeout_seconds": 5.0} | remote
    return StreamConfig.model_validate(
        {"shards": shards, "batch_size": 4, "clip_frames": 8, "cache_mib": 0, "remote": access, "workers": workers}
    )


def content(settings: StreamConfig, batches: int = 6) -> list[tuple[Any, ...]]:
    return [(b.keys, b.video.numpy().tobytes()) for b in make_loader(settings, "train", seed=0, total_batches=batches)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("read", ["range", "whole"])
def test_a_web_server_gives_the_same_stream_as_a_folder(
    read: str, workers: int, server: Server, corpora: Path, tmp_path: Path
) -> None:
    expected = content(config(str(corpora / "a"), tmp_path))
    assert content(config(f"{server.url}/a", tmp_path, workers, read=read)) == expected
    tars = {name: size for name, size in server.sent.items() if name.endswith(".tar")}
    whole = {path.name: path.stat().st_size for path in (corpora / "a").glob("*.tar")}
    cached = [path.name for path in (tmp_path / "cache").rglob("*.tar")]
    if read == "whole":
        assert len(cached) == len(whole) == len(tars)
        assert sum(server.asked[name] for name in tars) <= len(whole) * max(1, workers), "each is fetched once"
    else:
        assert not cached, "shards are not kept"
        videos = list(ShardSet.open(corpora / "a").samples)
        largest = max(s.end - min(at for at, _ in s.members.values()) for s in videos)
        assert max(size / server.asked[name] for name, size in tars.items()) <= largest
    assert server.asked["manifest.json"] == 1, "the workers do not ask again"


def test_a_server_without_ranges_is_said_to_be_one_and_its_shards_are_read_whole(
    server: Server, corpora: Path, tmp_path: Path
) -> None:
    server.ranges = False
    with pytest.raises(
        DataError, match=r"train-0.*tar: the server ignores range requests. Set data.remote.read: whole"
    ):
        content(config(f"{server.url}/a", tmp_path))
    expected = content(config(str(corpora / "a"), tmp_path))
    assert content(config(f"{server.url}/a", tmp_path, read="whole")) == expected


@pytest.mark.parametrize("read", ["range", "whole"])
def test_two_corpora_with_the_same_file_names_never_meet_in_the_cache(
    read: str, server: Server, corpora: Path, tmp_path: Path
) -> None:
    for name in ("a", "b", "a"):
        expected = content(config(str(corpora / name), tmp_path))
        assert content(config(f"{server.url}/{name}", tmp_path, read=read)) == expected


@pytest.mark.parametrize("read", ["range", "whole"])
def test_a_corpus_that_was_replaced_is_not_read_from_the_cache(
    read: str, server: Server, corpora: Path, tmp_path: Path
) -> None:
    settings = config(f"{server.url}/a", tmp_path, read=read)
    content(settings)
    shutil.rmtree(server.folder / "a")
    shutil.copytree(corpora / "b", server.folder / "a")
    assert content(settings) == content(config(str(corpora / "b"), tmp_path))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_stays_below_its_bound_and_the_stream_stays_right(
    workers: int, server: Server, corpora: Path, tmp_path: Path
) -> None:
    expected = content(config(str(corpora / "a"), tmp_path), 12)
    bound = 50_000  # one or two of four shards fit, beside their indices
    assert sum(path.stat().st_size for path in (corpora / "a").iterdir()) > 1.5 * bound
    settings = config(f"{server.url}/a", tmp_path, workers, read="whole", cache_gib=bound / GIB)
    held = 0
    found = []
    for batch in make_loader(settings, "train", seed=0, total_batches=12):
        found.append((batch.keys, batch.video.numpy().tobytes()))
        if not workers:  # which may be about to make room
            held = max(held, sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").iterdir()))
    assert found == expected
    assert held <= bound and not list((tmp_path / "cache").rglob("*.partial"))
    assert sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").iterdir()) <= bound
    assert sum(server.asked[path.name] for path in (corpora / "a").glob("*.tar")) > 4, "something was fetched again"


def test_a_download_that_a_killed_process_left_is_cleared_away(server: Server, tmp_path: Path) -> None:
    import os

    cache = tmp_path / "cache" / "shards"
    cache.mkdir(parents=True)
    old, young = cache / "old.tar.1.1.partial", cache / "young.tar.2.2.partial"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    content(config(f"{server.url}/a", tmp_path, read="whole"))
    assert not old.exists() and young.exists(), "the young one may still be written"


@pytest.mark.parametrize("read", ["range", "whole"])
def test_a_server_that_fails_now_and_then_is_asked_again(
    read: str, server: Server, corpora: Path, tmp_path: Path
) -> None:
    server.fail = lambda name, times: times % 2 == 1  # every first, third, … request of a file
    assert content(config(f"{server.url}/a", tmp_path, read=read), 2) == content(
        config(str(corpora / "a"), tmp_path), 2
    )


@pytest.mark.parametrize("read", ["range", "whole"])
def test_a_server_that_fails_for_good_is_named(read: str, server: Server, tmp_path: Path) -> None:
    settings = config(f"{server.url}/a", tmp_path, read=read)
    server.fail = lambda name, times: True
    with pytest.raises(DataError, match=r"/a: cannot be fetched \(500.*2 attempts\)"):
        make_loader(settings, "train", seed=0)
    server.fail = lambda name, times: name.endswith(".tar")
    with pytest.raises(
        DataError, match=r"16 samples in a row cannot be read; the last: \S+\.tar ep-\d: missing: .*500"
    ):
        content(settings)
    assert server.asked["manifest.json"] == 3


def test_an_address_with_nothing_or_nobody_behind_it_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/nowhere: there is no such file. It needs the address of a folder"):
        make_loader(config(f"{server.url}/nowhere", tmp_path), "train", seed=0)
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/a: cannot be fetched"):
        make_loader(config("http://127.0.0.1:9/a", tmp_path, attempts=1), "train", seed=0)


@pytest.mark.parametrize("read", ["range", "whole"])
def test_a_transfer_that_was_cut_short_is_found_by_its_size_and_asked_for_again(
    read: str, server: Server, corpora: Path, tmp_path: Path
) -> None:
    first = "train-000000.tar"
    server.cut = {first}
    settings = config(f"{server.url}/a", tmp_path, read=read).model_copy(update={"max_bad_fraction": 1.0})
    loader = make_loader(settings, "train", seed=0)
    list(loader)
    in_first = {s.key for s in ShardSet.open(corpora / "a").samples if s.shard == first}
    assert set(loader.bad) == in_first and {bad.kind for bad in loader.bad.values()} == {"missing"}
    assert all("bytes arrived" in bad.detail for bad in loader.bad.values())
    assert not list((tmp_path / "cache").rglob(f"*{first}")), "half a file is not kept"
    server.cut = set()
    assert content(settings) == content(config(str(corpora / "a"), tmp_path))


def test_bytes_changed_on_the_way_are_found_by_the_checksum(server: Server, tmp_path: Path) -> None:
    shards = ShardSet.open(server.folder / "a")
    sample = shards.samples[3]
    offset, size = sample.members["mp4"]
    tar = server.folder / "a" / sample.shard
    data = bytearray(tar.read_bytes())
    data[offset + size // 2] ^= 1
    tar.write_bytes(data)
    for read in ("range", "whole"):
        loader = make_loader(config(f"{server.url}/a", tmp_path, read=read), "train", seed=0)
        list(loader)
        assert [(bad.key, bad.kind) for bad in loader.bad.values()] == [(sample.key, "damaged")]


def test_a_lost_index_or_table_is_made_up_for_from_afar(server: Server, corpora: Path, tmp_path: Path) -> None:
    expected = content(config(str(corpora / "a"), tmp_path))
    (server.folder / "a" / "index.npy").unlink()
    assert content(config(f"{server.url}/a", tmp_path)) == expected
    (server.folder / "a" / "train-000000.index.jsonl").unlink()
    settings = config(f"{server.url}/a", tmp_path / "new")
    assert "its index is missing" in make_loader(settings, "train", seed=0).notes[0]
    assert content(settings) == expected


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_an_object_store_names_the_package_it_needs(scheme: str, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed, so nothing is missing")
    for read in ("range", "whole"):
        with pytest.raises(DataError, match=rf"{scheme}://bucket/corpus/manifest.json: .*{package}"):
            make_loader(config(f"{scheme}://bucket/corpus", tmp_path, read=read), "train", seed=0)


def test_file_addresses_are_folders_and_unknown_schemes_are_refused(corpora: Path, tmp_path: Path) -> None:
    expected = content(config(str(corpora / "a"), tmp_path))
    assert content(config(f"file://{corpora}/a", tmp_path)) == expected
    with pytest.raises(DataError, match=r"ftp://host/a: no way to read ftp://. Give a folder, or http://"):
        make_loader(config("ftp://host/a", tmp_path), "train", seed=0)


def test_a_shell_command_runs_only_if_it_is_allowed(corpora: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    command = f"pipe:touch '{trace}'; cat {corpora}/a/{{file}}"
    with pytest.raises(DataError, match=r"runs a shell command. Allow it with data.remote.allow_pipe=true"):
        make_loader(config(command, tmp_path), "train", seed=0)
    assert not trace.exists()
    assert content(config(command, tmp_path, allow_pipe=True)) == content(config(str(corpora / "a"), tmp_path))
    assert trace.exists()
    with pytest.raises(DataError, match="say where the file's name goes"):
        make_loader(config("pipe:cat manifest.json", tmp_path, allow_pipe=True), "train", seed=0)
    with pytest.raises(DataError, match=r"cannot be fetched \(the command ended with 7: oh no; 2 attempts\)"):
        make_loader(config("pipe:echo oh no >&2; exit 7 # {file}", tmp_path, allow_pipe=True), "train", seed=0)


def test_names_of_files_cannot_become_shell_commands(corpora: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    store = open_store(
        f"pipe:cat {corpora}/a/{{file}}",
        Access.model_validate({"cache": str(tmp_path), "allow_pipe": True, "attempts": 1}),
    )
    with pytest.raises(DecodeError):
        store.current(f"x; touch '{trace}'")
    assert not trace.exists()


def test_nothing_in_an_address_is_replaced_by_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    for text in ("${A_SECRET}", "$A_SECRET", "~"):
        for shards in (f"{server.url}/{text}", str(tmp_path / text)):
            with pytest.raises(DataError) as caught:
                make_loader(config(shards, tmp_path), "train", seed=0)
            assert "hunter2" not in str(caught.value)
    asked = " ".join(server.paths)
    assert "A_SECRET" in asked and "hunter2" not in asked


def test_a_cache_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"data.remote.cache: .*cannot be made"):
        make_loader(config(f"{server.url}/a", tmp_path), "train", seed=0)


def test_names_in_the_cache_come_from_the_whole_address_and_the_manifest(server: Server, tmp_path: Path) -> None:
    settings = config(f"{server.url}/a", tmp_path, read="whole")
    content(settings)
    edition = hashlib.sha256((server.folder / "a" / "manifest.json").read_bytes()).hexdigest()
    for path in (tmp_path / "cache" / "shards").iterdir():
        identity, _, name = path.name.partition("-")
        assert identity == hashlib.sha256(f"{edition} {server.url}/a/{name}".encode()).hexdigest()[:32]
