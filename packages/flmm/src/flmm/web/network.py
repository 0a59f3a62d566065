"""Addresses of the page, the names under which browsers may call it, and slow connections.

`TimedProtocol` builds on uvicorn's protocol for h11, whose class is not documented; tried with
uvicorn 0.40 and newer.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

EVERYWHERE = ("0.0.0.0", "::")
LOCAL = ("127.0.0.1", "localhost", "::1")
HEAD_S = 10.0


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Open a socket for each address of a host; "localhost" has one of IPv4 and one of IPv6.

    Raises:
        ValueError: no such port or host, or none of its addresses is free.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port} is no port: pass 1 to 65535, or 0 for a free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as fault:
        raise ValueError(
            f"--host {host} is not known ({fault}): pass an address of this machine"
        ) from fault

    opened: list[socket.socket] = []
    reason = "it has no address"
    for family, kind, protocol, _, address in dict.fromkeys(found):
        chosen = opened[0].getsockname()[1] if opened else port  # one port for all addresses
        try:
            bound = socket.socket(family, kind, protocol)
        except OSError as fault:  # such as a machine without IPv6
            reason = fault.strerror or str(fault)
            continue
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], chosen, *address[2:]))
            opened.append(bound)
        except OSError as fault:
            bound.close()
            reason = fault.strerror or str(fault)

    if not opened:
        raise ValueError(
            f"cannot listen on {host}:{port} ({reason}): pass another --port, or 0 for a free one"
        )
    return opened


def addresses(sockets: Sequence[socket.socket], host: str) -> list[str]:
    """List the addresses to open in a browser."""
    shown = []
    for bound in sockets:
        name, port = bound.getsockname()[:2]
        if name in EVERYWHERE:
            name = socket.gethostname()
        elif host == "localhost" and len(sockets) > 1:  # both of its addresses answer
            name = host
        shown.append(f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}")
    return list(dict.fromkeys(shown))


def allowed_hosts(host: str) -> list[str]:
    """List the names that browsers may call this machine; "*" allows all.

    Other names are refused, so that no page elsewhere can pose as this one.
    """
    return ["*"] if host in EVERYWHERE else sorted({host, *LOCAL})


class HostCheck:
    """Refuses requests whose Host header is none of `hosts`; IPv6 addresses stand in brackets."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self.app = app
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with status 400, or hand the request on."""
        if scope["type"] == "http" and "*" not in self.hosts:
            named = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if _host_name(named) not in self.hosts:
                refusal = JSONResponse({"error": "this page has another address"}, 400)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets; "" where it has none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:  # such as an unclosed bracket
        return ""


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP, with a limit on the time that the head of a request takes."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once the head is there."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HEAD_S, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
