"""Which URLs a worker may register: their form, and the addresses that their hosts may have."""

from __future__ import annotations

import pytest

from daybreak_server.domain.worker_urls import parse_address, parse_worker_url, refusal


@pytest.mark.parametrize(
    ("text", "canonical", "host", "port"),
    [
        ("http://10.0.0.7:7000", "http://10.0.0.7:7000", "10.0.0.7", 7000),
        ("http://10.0.0.7:7000/", "http://10.0.0.7:7000", "10.0.0.7", 7000),
        ("HTTPS://GPU-1.example.com", "https://gpu-1.example.com", "gpu-1.example.com", 443),
        ("http://[fd00::7]:7000", "http://[fd00::7]:7000", "fd00::7", 7000),
        ("http://gpu_1", "http://gpu_1", "gpu_1", 80),
    ],
)
def test_a_url_has_one_form(text, canonical, host, port):
    url = parse_worker_url(text)
    assert (url.text, url.host, url.port) == (canonical, host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.0.0.7:7000", "ftp://10.0.0.7", "file:///etc/passwd", "http://", "http://:7000"),
        *("http://10.0.0.7:0", "http://10.0.0.7:99999", "http://10.0.0.7:x", "http://[fd00::7"),
        *("http://user:secret@10.0.0.7", "http://10.0.0.7/path", "http://10.0.0.7?q", "http://10.0.0.7#f"),
        *("http://10.0.0.7 evil", "http://10.0.0.7\r\nX: y", "http://" + "a" * 3000),
    ],
)
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"Write a URL such as http://10\.0\.0\.7:7000\."):
        parse_worker_url(text)


def refused(url, *, allowed=(), came_from="10.0.0.7", trusted=False, addresses=None):
    found = addresses or [parse_worker_url(url).host]
    return refusal(
        parse_worker_url(url),
        [parse_address(address) for address in found],
        allowed_networks=allowed,
        registered_from=parse_address(came_from),
        trusted=trusted,
    )


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:1", "http://127.0.0.1:1", "http://[::1]:1", "http://127.9.9.9"]
)
def test_without_settings_a_worker_is_where_it_registers_from_or_on_this_machine(url):
    assert refused(url) is None


def test_without_settings_another_address_is_refused_with_what_to_set():
    reason = refused("http://169.254.169.254")
    assert reason is not None
    assert "10.0.0.7" in reason
    assert "workers.allowed_networks" in reason


def test_ipv4_within_ipv6_is_ipv4():
    assert refused("http://10.0.0.7:1", came_from="::ffff:10.0.0.7") is None
    assert refused("http://[::ffff:10.0.0.7]:1", allowed=["10.0.0.0/8"]) is None
    assert refused("http://[::ffff:169.254.169.254]", came_from="10.0.0.7") is not None


def test_a_token_allows_any_address_but_not_outside_the_allowed_networks():
    assert refused("http://192.0.2.1", trusted=True) is None
    assert refused("http://192.0.2.1", trusted=True, allowed=["10.0.0.0/8"]) is not None
    assert refused("http://10.1.2.3", trusted=True, allowed=["fd00::/8", "10.0.0.0/8"]) is None


def test_the_allowed_networks_replace_the_address_of_the_request():
    assert refused("http://10.0.0.7", allowed=["192.0.2.0/24"]) is not None
    assert refused("http://127.0.0.1", allowed=["192.0.2.0/24"]) is not None


def test_every_address_of_a_name_must_be_allowed():
    allowed = {"allowed": ["10.0.0.0/8"]}
    assert refused("http://gpu", addresses=["10.0.0.7", "10.0.0.8"], **allowed) is None
    reason = refused("http://gpu", addresses=["10.0.0.7", "169.254.169.254"], **allowed)
    assert reason is not None
    assert "169.254.169.254" in reason
