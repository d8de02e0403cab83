"""The server's socket, bound before the server is loaded: a taken port is said at once and plainly,
and who connects before the server is there waits for it."""

import errno
import socket

BACKLOG = 2048


class PortTakenError(OSError):
    """Another program listens on the address already."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `PortTakenError`, or `OSError` for an
    address that this machine does not have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol stated asyncio turns Nagle's algorithm off for what it accepts. With it on,
    # every answer in two parts waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        place = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"{place} is taken by another program. Stop it, or choose another port with --port."
            ) from error
        raise OSError(error.errno, f"Cannot listen on {place}: {error.strerror}") from error
    return listener


def address(listener: socket.socket) -> str:
    """Where this machine reaches the socket: loopback when it listens on every address."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
