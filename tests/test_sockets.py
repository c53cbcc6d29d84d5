"""The guard of the test suite itself."""

import socket

import pytest


def test_a_foreign_address_is_refused():
    """A test cannot connect to another machine, by number or by name."""
    with socket.socket() as one, pytest.raises(RuntimeError, match="only loopback"):
        one.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="only loopback"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_loopback_is_open():
    """A test may talk to a server of its own."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()


@pytest.mark.network
def test_the_network_marker_opts_out():
    """A test marked `network` gets the plain socket."""
    assert socket.socket.connect.__name__ == "connect"
    assert "guarded" not in socket.socket.connect.__qualname__
