"""W3C Trace Context: a valid header is kept, an invalid one is ignored, and the size is bounded."""

from __future__ import annotations

import pytest

from daybreak_server.domain.tracing import TRACESTATE_MAX, TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [PARENT, PARENT],
        [""],
        [PARENT.upper()],
        [f"{PARENT}-more"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}"],
        [f"01-{TRACE}-{SPAN}-01more"],
    ],
)
def test_a_malformed_traceparent_is_ignored(values: list[str]) -> None:
    assert TraceContext.parse(values, ["a=1"]) is None


def test_only_the_known_flags_of_a_later_version_are_kept() -> None:
    context = TraceContext.parse([f"cc-{TRACE}-{SPAN}-ff-what-comes"])
    assert context == TraceContext(traceparent=PARENT)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (["congo=t61rcWkgMzE", "rojo=00f067"], "congo=t61rcWkgMzE,rojo=00f067"),
        ([" a@b=1 , , c=2 "], "a@b=1,c=2"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a"], ""),
        (["a=\xe9"], ""),
        ([",".join(f"k{number}=1" for number in range(33))], ""),
    ],
)
def test_a_valid_tracestate_is_kept_and_an_invalid_one_is_left_out(values: list[str], kept: str) -> None:
    assert TraceContext.parse([PARENT], values) == TraceContext(traceparent=PARENT, tracestate=kept)


def test_a_long_tracestate_loses_its_long_members_first_and_then_its_last() -> None:
    """The W3C recommendation prescribes this order."""
    members = [f"k{number}={'v' * 60}" for number in range(9)]
    context = TraceContext.parse([PARENT], [f"long={'v' * 200}", *members])
    assert context is not None
    assert context.tracestate == ",".join(members[:8])
    assert len(context.tracestate) <= TRACESTATE_MAX
