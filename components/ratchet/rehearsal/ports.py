"""Loopback ports: one that is free, or one that was asked for and must be."""

import socket

from ratchet.errors import UserError


def free_port(host: str) -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def listen(host: str, port: int, flag: str) -> socket.socket:
    """A bound socket. Raises UserError if the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"{flag} {port}: {error.strerror} on {host}; stop what holds the port or name another"
        ) from None
    return listener
