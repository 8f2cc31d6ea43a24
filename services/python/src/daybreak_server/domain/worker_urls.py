"""Decides which URLs a worker may register. Gateways send clients' data to these URLs, so not every URL is allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
_HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
_MAX_CHARS = 2000


@dataclass(frozen=True, slots=True)
class WorkerUrl:
    """The URL of a worker, without a path."""

    text: str
    """The URL in canonical form, such as ``http://10.0.0.7:7000``."""
    host: str
    """A name or an address, without brackets."""
    port: int


def parse_worker_url(text: str) -> WorkerUrl:
    """The URL in canonical form. :raises ValueError: with a sentence that says what is wrong with it."""
    example = "Write a URL such as http://10.0.0.7:7000."
    if len(text) > _MAX_CHARS:
        raise ValueError(f"The URL is longer than {_MAX_CHARS} characters. {example}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"{text!r} is not a URL: {exc}. {example}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or port == 0:
        raise ValueError(f"{text!r} is not a URL of a worker. {example}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"The URL has a user name or password. Leave them out. {example}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} has a path, a query or a fragment. Leave them out. {example}")
    shown = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    return WorkerUrl(f"{parts.scheme}://{shown}", host, port or (443 if parts.scheme == "https" else 80))


def parse_address(text: str) -> Address | None:
    """Parse an address and drop its zone. IPv4-mapped IPv6 becomes IPv4. ``None`` if the text is not an address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def refusal(
    url: WorkerUrl,
    addresses: Sequence[Address],
    *,
    allowed_networks: Sequence[str],
    registered_from: Address | None,
    trusted: bool,
) -> str | None:
    """Why a worker may not register a URL; ``None`` if it may.

    :param addresses: All addresses of the URL's host.
    :param allowed_networks: The networks in which workers may be. If the list is empty, ``trusted`` decides.
    :param registered_from: The address from which the worker sends its request.
    :param trusted: Whether every worker must know the secret ``workers.token``. If so, and if ``allowed_networks`` is
        empty, any address is allowed.
    """
    networks = [ip_network(network) for network in allowed_networks]
    for address in addresses:
        if networks:
            if not any(address in network for network in networks):
                return (
                    f"The worker's URL {url.text} is at {address}, which is not in workers.allowed_networks "
                    f"({', '.join(allowed_networks)}). Register another URL with --public-url, or add its network."
                )
        elif not trusted and not address.is_loopback and address != registered_from:
            return (
                f"The worker's URL {url.text} is at {address}, but the worker registers from "
                f"{registered_from or 'elsewhere'}. Set workers.allowed_networks or workers.token on the "
                "gateway to allow other addresses."
            )
    return None
