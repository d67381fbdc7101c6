"""Where images of Label Studio's tasks may come from: a folder and one server."""

import socket
import threading
import time
from pathlib import Path

import pytest

from unispector.errors import DataError, ServiceError
from unispector.serving.label_studio.images import StudioImages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root/line 1").mkdir(parents=True)
    (tmp_path / "root/line 1/a.png").write_bytes(b"a")
    (tmp_path / "outside.png").write_bytes(b"secret")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=line%201/a.png",
        "/data/local-files/?d=line 1/a.png",
        "/sub/data/local-files/?d=line+1/a.png",
        "s3://bucket/line%201/a.png",
        "gs://bucket/line 1/a.png",
    ],
)
def test_a_folder(folder: Path, address: str) -> None:
    assert StudioImages(folder=folder).read(address, 10, 1) == b"a"


@pytest.mark.parametrize(
    "path",
    ["../outside.png", "line 1/../../outside.png", "/etc/passwd", "%2e%2e/outside.png", "link.png", "\0"],
)
@pytest.mark.parametrize("start", ["/data/local-files/?d=", "s3://bucket/"])
def test_nothing_outside_the_folder_is_read(folder: Path, start: str, path: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(DataError, match=r"leaves the folder|is not in --label-studio-files"):
        StudioImages(folder=folder).read(start + path, 100, 1)


def test_a_long_file(folder: Path) -> None:
    (folder / "b.png").write_bytes(bytes(11))
    with pytest.raises(DataError, match="raise --body-mib"):
        StudioImages(folder=folder).read("/data/local-files/?d=b.png", 10, 1)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "http://host/?q=1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ServiceError, match="no address of a server; give one such as"):
        StudioImages(url)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no such folder; give"):
        StudioImages(folder=tmp_path / "none")


def test_a_server_that_drips_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    for _ in range(50):
                        connection.sendall(b"x")
                        time.sleep(0.1)
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(DataError, match="it takes too long"):
            StudioImages(f"http://127.0.0.1:{server.getsockname()[1]}").read("/data/x.png", 100, 0.5)
        assert time.monotonic() - began < 3
        thread.join(10)


def test_no_server() -> None:
    with pytest.raises(DataError, match=r"does not send the image .*; check --label-studio-url"):
        StudioImages("http://127.0.0.1:1").read("/data/x.png", 100, 1)
