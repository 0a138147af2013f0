"""Downloads, against a server on this machine: whole or not at all, resumed, checked, from mirror to mirror."""

import gzip
import hashlib
import io
import re
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from backhand.datasets import DataError, MissingDataError, cifar10, download, load_cifar10, load_mnist, mnist
from tests.test_cifar10 import TABLES, check_cifar
from tests.test_mnist import NAMES, arrays, idx

PAYLOAD = np.random.default_rng(0).bytes(300_000)
MD5 = "md5:" + hashlib.md5(PAYLOAD).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        content = server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        if asked and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                return self.send_error(416)
        start += server.wrong_start if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = server.closes_at.pop(0) if server.closes_at else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    """Serves `files`; `closes_at` holds, for the answers to come, the byte before which the connection ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.files, server.closes_at = [], {"/data.bin": PAYLOAD}, []
        server.ranges, server.length, server.wrong_start = True, True, 0
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody():
    """The address of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/data.bin"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole(server, tmp_path):
    path = tmp_path / "a" / "b" / "data.bin"
    assert download(server.url + "data.bin", str(path), MD5) == path
    assert path.read_bytes() == PAYLOAD
    assert names(path.parent) == ["data.bin"]
    assert server.requests == [("/data.bin", None)]


@pytest.mark.parametrize(
    "checksum", [MD5.upper().replace("MD5", "md5"), "sha256:" + hashlib.sha256(PAYLOAD).hexdigest()]
)
def test_checksums(server, tmp_path, checksum):
    assert download([server.url + "data.bin"], tmp_path / "data.bin", checksum).read_bytes() == PAYLOAD


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(PAYLOAD)
    download(server.url + "data.bin", path, MD5)
    assert server.requests == []


def test_a_file_that_is_there_is_never_overwritten(server, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"mine")
    with pytest.raises(DataError) as caught:
        download(server.url + "data.bin", path, MD5)
    assert str(caught.value).startswith(f"{path}: expected {MD5}, got md5:")
    assert path.read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize("length", [True, False])
def test_interrupted_then_resumed(server, tmp_path, length):
    path, part = tmp_path / "data.bin", tmp_path / "data.bin.part"
    server.length = length
    server.closes_at = [200_000]
    if not length:  # then the end of the connection is the end of the file, and only the checksum knows better
        with pytest.raises(MissingDataError, match="expected md5"):
            download(server.url + "data.bin", path, MD5)
        assert names(tmp_path) == []
        return
    with pytest.raises(MissingDataError) as caught:
        download(server.url + "data.bin", path, MD5)
    kept = part.read_bytes()
    assert 100_000 < len(kept) <= 200_000
    assert PAYLOAD.startswith(kept)
    assert names(tmp_path) == ["data.bin.part"]
    assert f"Its first {len(kept)} bytes are kept in {part}" in str(caught.value)
    download(server.url + "data.bin", path, MD5)
    assert server.requests == [("/data.bin", None), ("/data.bin", f"bytes={len(kept)}-")]
    assert path.read_bytes() == PAYLOAD
    assert names(tmp_path) == ["data.bin"]


def test_the_next_mirror_goes_on_where_the_first_one_broke_off(server, tmp_path):
    server.files["/other.bin"] = PAYLOAD
    server.closes_at = [150_000]
    download([server.url + "data.bin", server.url + "other.bin"], tmp_path / "data.bin", MD5)
    (first, none), (second, asked) = server.requests
    assert (first, none, second) == ("/data.bin", None, "/other.bin")
    assert 0 < int(asked[len("bytes=") : -1]) <= 150_000
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "data.bin.part").write_bytes(PAYLOAD[:1000])
    download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    assert server.requests == [("/data.bin", "bytes=1000-")]
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_a_server_that_goes_on_elsewhere_is_asked_for_the_whole(server, tmp_path):
    server.wrong_start = 500
    (tmp_path / "data.bin.part").write_bytes(PAYLOAD[:1000])
    download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    assert server.requests == [("/data.bin", "bytes=1000-"), ("/data.bin", None)]
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(bytes(len(PAYLOAD) + 5))
    download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    assert server.requests == [("/data.bin", f"bytes={len(PAYLOAD) + 5}-"), ("/data.bin", None)]
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_a_part_that_is_whole_needs_no_server(nobody, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(PAYLOAD)
    download(nobody, tmp_path / "data.bin", MD5)
    assert names(tmp_path) == ["data.bin"]


def test_the_file_changed_on_the_server_since(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"an older one")
    with pytest.raises(DataError, match=f"expected {MD5}, got md5:"):
        download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    assert names(tmp_path) == []
    download(server.url + "data.bin", tmp_path / "data.bin", MD5)  # and the next try is a clean one
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_wrong_checksum(server, tmp_path):
    server.files["/data.bin"] = PAYLOAD[:-1] + b"?"
    with pytest.raises(DataError) as caught:
        download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    assert f"{server.url}data.bin: expected {MD5}, got md5:" in str(caught.value)
    assert names(tmp_path) == []


def test_wrong_checksum_on_the_first_mirror_only(server, tmp_path):
    server.files["/bad.bin"] = b"<html>please log in</html>"
    download([server.url + "bad.bin", server.url + "data.bin"], tmp_path / "data.bin", MD5)
    assert server.requests == [("/bad.bin", None), ("/data.bin", None)]
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_404_then_the_second_mirror(server, tmp_path):
    download([server.url + "gone.bin", server.url + "data.bin"], tmp_path / "data.bin", MD5)
    assert [path for path, _ in server.requests] == ["/gone.bin", "/data.bin"]
    assert (tmp_path / "data.bin").read_bytes() == PAYLOAD


def test_nothing_works_and_the_message_says_how_to_do_it_by_hand(server, nobody, tmp_path):
    gone = server.url + "gone.bin"
    with pytest.raises(MissingDataError) as caught:
        download([gone, nobody, "no address"], tmp_path / "data.bin", MD5)
    text = str(caught.value)
    assert text.startswith(f"data.bin could not be downloaded ({gone}: HTTP error 404 Not Found; {nobody}: ")
    assert "refused" in text
    assert f"By hand: download {gone} or {nobody} or no address and save it as {tmp_path / 'data.bin'} ({MD5})" in text
    assert "\n" not in text
    assert isinstance(caught.value, (DataError, FileNotFoundError))
    assert names(tmp_path) == []


def test_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        with pytest.raises(DataError, match="timed out"):
            download(url, tmp_path / "data.bin", MD5, timeout=0.05)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "checksum",
    ["", "md5", "md5:", "md5:abc", MD5[4:], "crc:00", "md5:" + "g" * 32, "shake_128:", None, 5, MD5.encode(), [MD5]],
)
def test_checksums_that_are_none(nobody, tmp_path, checksum):
    with pytest.raises(DataError, match=r"checksum: expected .md5:"):
        download(nobody, tmp_path / "data.bin", checksum)
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(nobody, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "data.bin", tmp_path / "folder"):
        with pytest.raises(DataError, match="cannot be written or read") as caught:
            download(nobody, path, MD5)
        assert str(caught.value).startswith(f"{path}: ")
    assert names(tmp_path) == ["file", "folder"]


def test_an_empty_list_of_mirrors(tmp_path):
    with pytest.raises(DataError, match="no address given"):
        download([], tmp_path / "data.bin", MD5)


@pytest.mark.parametrize("have", [0, 100_000])
def test_the_bar_counts_every_byte(server, tmp_path, monkeypatch, have):
    import tqdm

    bars = []

    class Recorded(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            assert kwargs.pop("disable") is None
            super().__init__(*args, file=io.StringIO(), **kwargs)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Recorded)
    (tmp_path / "data.bin.part").write_bytes(PAYLOAD[:have])
    download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    (bar,) = bars
    assert (bar.initial, bar.n, bar.total, bar.desc) == (have, len(PAYLOAD), len(PAYLOAD), "data.bin")


def test_no_bar_without_a_terminal_or_when_unwanted(server, tmp_path, capsys):
    download(server.url + "data.bin", tmp_path / "a", MD5)
    download(server.url + "data.bin", tmp_path / "b", MD5, progress=False)
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------------- the readers that use it


@pytest.fixture
def mnist_server(server, monkeypatch):
    files = {name: gzip.compress(idx(array)) for name, array in zip(NAMES, arrays(), strict=True)}
    server.files = {f"/mnist/{name}": content for name, content in files.items()}
    sums = {name: "md5:" + hashlib.md5(content).hexdigest() for name, content in files.items()}
    assert list(sums) == list(mnist.CHECKSUMS)
    monkeypatch.setattr(mnist, "CHECKSUMS", sums)
    monkeypatch.setattr(mnist, "MIRRORS", (server.url + "down/", server.url + "mnist/"))
    return server


def test_mnist_is_fetched_once(mnist_server, tmp_path):
    folder = tmp_path / "new" / "mnist"
    data = load_mnist(folder, validation=5)
    assert [len(part.y) for part in data[:3]] == [15, 5, 6]
    assert names(folder) == sorted(NAMES)
    assert len(mnist_server.requests) == 8  # each from the second mirror
    load_mnist(folder, validation=5)
    assert len(mnist_server.requests) == 8


def test_mnist_fetches_only_what_is_missing(mnist_server, tmp_path):
    load_mnist(tmp_path, validation=5)
    mnist_server.requests.clear()
    (tmp_path / NAMES[1]).unlink()
    load_mnist(tmp_path, validation=5)
    assert [path for path, _ in mnist_server.requests] == [f"/down/{NAMES[1]}", f"/mnist/{NAMES[1]}"]


def test_mnist_without_a_network(tmp_path, nobody, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (nobody + "/",))
    with pytest.raises(MissingDataError) as caught:
        load_mnist(tmp_path)
    assert f"save it as {tmp_path / NAMES[0]} (md5:f68b3c2dcbeaaa9fbdd348bbdeb94873)" in str(caught.value)


def test_cifar_is_fetched_once(server, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, table in TABLES.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = table.nbytes
            tar.addfile(entry, io.BytesIO(table.tobytes()))
    server.files[f"/{cifar10.ARCHIVE}"] = packed.getvalue()
    monkeypatch.setattr(cifar10, "MIRRORS", (server.url,))
    monkeypatch.setattr(cifar10, "CHECKSUM", "md5:" + hashlib.md5(packed.getvalue()).hexdigest())
    for _ in range(2):
        check_cifar(load_cifar10(tmp_path / "new", validation=3))
    assert len(server.requests) == 1
    assert names(tmp_path / "new") == [cifar10.ARCHIVE]


def test_addresses_that_are_none(tmp_path):
    with pytest.raises(MissingDataError, match="no address given"):
        download(None, tmp_path / "data.bin", MD5)
    for urls in ([None], [b"http://127.0.0.1/data.bin"], [5]):
        with pytest.raises(DataError, match="urls: expected addresses as text, got"):
            download(urls, tmp_path / "data.bin", MD5)
    assert names(tmp_path) == []


def test_a_page_to_sign_in_comes_instead(server, tmp_path):
    server.files["/data.bin"] = b"<!DOCTYPE html><html>Sign in to this network</html>"
    with pytest.raises(MissingDataError, match=r"got md5:[0-9a-f]{32} \(a web page \(HTML\)\)"):
        download(server.url + "data.bin", tmp_path / "data.bin", MD5)
    assert names(tmp_path) == []
    (tmp_path / "data.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(DataError, match=r"got md5:[0-9a-f]{32} \(a git-lfs pointer.*\); move it away"):
        download(server.url + "data.bin", tmp_path / "data.bin", MD5)
