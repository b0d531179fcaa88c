"""The Unix socket: its mode, what is replaced, and what is not."""

import os
import socket
import stat
from pathlib import Path

import pytest

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import Address
from sidecar.listening import UnixSocket, bind_tcp


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        bound = UnixSocket(tmp_path / "new" / "api.sock", 0o660)
    finally:
        os.umask(old)

    assert mode_of(bound.path) == 0o660
    assert mode_of(bound.path.parent) & 0o007 == 0
    assert [entry.name for entry in bound.path.parent.iterdir()] == ["api.sock"]
    bound.socket.close()


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    bound = UnixSocket(path, 0o600)

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.socket.close()


def test_a_living_listener_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    first = UnixSocket(path, 0o600)

    with pytest.raises(TaximeterError, match="another process listens"):
        UnixSocket(path, 0o600)

    first.socket.close()


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")

    with pytest.raises(TaximeterError, match="is no socket"):
        UnixSocket(path, 0o600)

    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(TaximeterError, match="expected at most 107 bytes"):
        UnixSocket(tmp_path / ("x" * 108), 0o600)


def test_remove_takes_only_its_own_away(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    first = UnixSocket(path, 0o600)
    first.socket.close()
    second = UnixSocket(path, 0o600)

    first.remove()
    assert path.exists()
    second.remove()
    assert not path.exists()
    second.remove()
    second.socket.close()


def test_a_tcp_port_that_is_taken_is_refused_by_name() -> None:
    with bind_tcp(Address("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(TaximeterError, match=rf"--http: can't listen on 127.0.0.1:{port}: "):
            bind_tcp(Address("127.0.0.1", port))


def test_a_name_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(TaximeterError, match=r"can't listen on nowhere\.invalid:80"):
        bind_tcp(Address("nowhere.invalid", 80))
