"""The dashboard of streaming sessions: how many are open, how late their text is, and what the model does."""

from __future__ import annotations

from dashboards.model import (
    BAD,
    BUSY,
    FINE,
    GOOD,
    LATE,
    NONE,
    Dashboard,
    Kind,
    Panel,
    Row,
    Unit,
    quantiles,
    query,
)

_PHASES = {"prefill": FINE, "decode": GOOD, "mixed": BUSY}
_REFUSED = {"limit": LATE, "lag": BAD}
_MOVED = {"released": FINE, "left": LATE, "restarted": "#c2410c", "lease_lost": BAD, "taken over": GOOD}
_ENDED = {"opened": FINE, "finished": GOOD, "closed": NONE, "idle": LATE, "failed": BAD}


def _rate(metric: str, *labels: str) -> str:
    """The rate of a total in Redis, by labels."""
    by = ", ".join(("namespace", "pool", *labels))
    rate = f"max by ({by}) (rate(daybreak_{metric}{{POOL}}[$__rate_interval]))"
    return f"sum by ({', '.join(labels)}) ({rate})" if labels else f"sum ({rate})"


def _by_pod(metric: str) -> str:
    return f"max by (namespace, pool, pod) (daybreak_rank_{metric}{{POOL}})"


_SESSIONS = Row(
    title="Sessions",
    panels=(
        Panel(
            title="Open sessions",
            shows="Open sessions: those that a group serves, and those that wait for one. A waiting session loses no "
            "audio, but gets no new text.",
            bad="`waiting` above 0 for longer than a wake: no group has room, or groups crash.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            colors={"active": GOOD, "waiting": LATE},
            runbook="daybreaksessionswait",
            pictured=True,
            queries=(
                query(
                    "sum by (state) (max by (namespace, pool, state) (daybreak_sessions{POOL}))", "{{state}}"
                ),
            ),
        ),
        Panel(
            title="Opened and ended",
            shows="Sessions per second that were opened, and that ended, by reason. `finished`: the model has "
            "processed all audio. `closed`: a client or an administrator closed it. `idle`: neither audio nor a ping "
            "came for `session_timeout_s`. `failed`: the model could not continue.",
            bad="`failed` above 0: the event `ended` of a session says why. Many `idle`: clients do not end their "
            "sessions, which keep their places until the timeout.",
            unit=Unit.PER_SECOND,
            colors=_ENDED,
            runbook="daybreaksessionsfail",
            pictured=True,
            queries=(
                query(_rate("sessions_opened_total"), "opened"),
                query(_rate("sessions_ended_total", "reason"), "{{reason}}"),
            ),
        ),
        Panel(
            title="Refused",
            shows="Sessions per second that the pool refused with 429, by reason: the pool has `max_sessions` open "
            "sessions (`limit`), "
            "or all groups are behind although their turns are as long as they may be (`lag`).",
            bad="Above 0 for longer than a few minutes.",
            unit=Unit.PER_SECOND,
            colors=_REFUSED,
            runbook="daybreaksessionsrefused",
            pictured=True,
            queries=(query(_rate("sessions_refused_total", "reason"), "{{reason}}"),),
        ),
        Panel(
            title="Moved to another group",
            shows="Sessions per second that lost their group, by reason; and `taken over`: those that another group "
            "took. `released`: the group drains. `left`, `restarted`: its process ended. `lease_lost`: it froze, or "
            "its host died.",
            bad="`left`, `restarted` or `lease_lost` above 0: groups crash. `taken over` below the sum of the others: "
            "sessions wait.",
            unit=Unit.PER_SECOND,
            colors=_MOVED,
            runbook="daybreakgroupsrestart",
            pictured=True,
            queries=(
                query(_rate("sessions_moved_total", "reason"), "{{reason}}"),
                query(
                    'sum (max by (namespace, pool) (rate(daybreak_session_wait_seconds_count{POOL,which="moved"}'
                    "[$__rate_interval])))",
                    "taken over",
                ),
            ),
        ),
        Panel(
            title="Time without a group",
            shows="Median and 95th percentile of how long sessions waited until a group took them: `new` ones, and "
            "`moved` ones that lost their group.",
            bad="`moved` above the duration of the lease + 2 s, or `new` above 1 s outside a wake: no group had room.",
            unit=Unit.SECONDS,
            runbook="daybreaksessionswait",
            pictured=True,
            queries=quantiles("daybreak_session_wait_seconds{POOL}", "which", stored=True),
        ),
        Panel(
            title="Room for more",
            shows="How many further sessions the groups would take. Groups that drain or lag do not count.",
            bad="0: new sessions wait or are refused. More groups are needed (`targetLoad`, `maxGroups`).",
            unit=Unit.COUNT,
            runbook="daybreaksessionsrefused",
            queries=(query("max by (namespace, pool) (daybreak_sessions_room{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="Connections",
            shows="WebSockets of sessions, by gateway. A session may have none for a while: it ends only "
            "`session_timeout_s` after its last audio or ping.",
            bad="The number of one gateway falls suddenly: the gateway ended, and its clients connect to others.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            width=12,
            queries=(
                query(
                    'sum by (pod, instance) (daybreak_stream_subscribers{HERE,kind="session"})',
                    "{{pod}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Mean length of a session",
            shows="For how long the sessions that ended were open, on average.",
            bad="No length is bad in itself. Short sessions cost more: each one waits for a group, and its model "
            "begins without earlier turns.",
            unit=Unit.SECONDS,
            width=12,
            queries=(
                query(
                    "max by (namespace, pool) (rate(daybreak_sessions_open_seconds_total{POOL}[$__rate_interval])) / "
                    "sum by (namespace, pool) (max by (namespace, pool, reason) "
                    "(rate(daybreak_sessions_ended_total{POOL}[$__rate_interval])))",
                    "{{pool}}",
                ),
            ),
        ),
    ),
)

_DELAY = Row(
    title="How late the text is",
    panels=(
        Panel(
            title="Lag",
            shows="Median, 95th and 99th percentile of the audio that waits for the model beyond the length of one "
            "turn. Each session is sampled once a second.",
            bad="A p95 above `lag_limit_ms` (2 s): the groups work in longer turns, and in the end refuse sessions.",
            unit=Unit.SECONDS,
            runbook="daybreaksessionslag",
            pictured=True,
            queries=quantiles("daybreak_rank_session_lag_seconds{POOL}", "pool", at=(0.5, 0.95, 0.99)),
        ),
        Panel(
            title="First text",
            shows="Median and 95th percentile of the time from a session's first audio to its first text. Silence "
            "before the first word counts too.",
            bad="A step upwards while *Lag* stays low: clients send silence first, or ask for longer turns.",
            unit=Unit.SECONDS,
            pictured=True,
            queries=quantiles("daybreak_rank_first_text_seconds{POOL}", "pool"),
        ),
        Panel(
            title="Longer turns, and groups that refuse",
            shows="`turns`: the length of the longest turns of a group, divided by the usual length; above 1 while its "
            "sessions lag. `groups that refuse`: groups that take no new session, because longer turns were not "
            "enough.",
            bad="Above 1 for minutes: text comes later than users are used to. More groups are needed.",
            unit=Unit.COUNT,
            colors={".* turns": LATE, ".* groups that refuse": BAD},
            runbook="daybreaksessionsdegraded",
            pictured=True,
            queries=(
                query(
                    "max by (namespace, pool) (daybreak_rank_latency_multiplier_ratio{POOL})",
                    "{{pool}} turns",
                ),
                query("sum by (pool) (daybreak_rank_sessions_full{POOL})", "{{pool}} groups that refuse"),
            ),
        ),
    ),
)

_MODEL = Row(
    title="Groups and steps of the model",
    panels=(
        Panel(
            title="Sessions of each group",
            shows="Sessions that each group serves, by its pod.",
            bad="One group far above the others: sessions do not move by themselves, so the numbers even out only as "
            "sessions end.",
            unit=Unit.COUNT,
            pictured=True,
            queries=(query(_by_pod("sessions"), "{{pool}} {{pod}}"),),
        ),
        Panel(
            title="Sessions in a step",
            shows="Mean and 95th percentile of the number of sessions that share a step of the model, by phase.",
            bad="Near 1 while many sessions are open and *Time in steps* is near 100 %: sessions do not share steps. "
            "See `strategy`, `gather_size` and `max_batch_size`.",
            unit=Unit.COUNT,
            colors=_PHASES,
            pictured=True,
            queries=(
                query(
                    "sum by (phase) (rate(daybreak_rank_iteration_sessions_total{POOL}[$__rate_interval])) / "
                    "sum by (phase) (rate(daybreak_rank_iteration_seconds_count{POOL}[$__rate_interval]))",
                    "{{phase}} mean",
                ),
                *quantiles("daybreak_rank_iteration_items{POOL}", "phase", at=(0.95,)),
            ),
        ),
        Panel(
            title="Duration of a step",
            shows="Median and 95th percentile of how long the model takes for a step, by phase.",
            bad="A jump while *Sessions in a step* stays the same: other programs use the device.",
            unit=Unit.SECONDS,
            pictured=True,
            queries=quantiles("daybreak_rank_iteration_seconds{POOL}", "phase"),
        ),
        Panel(
            title="Turns that wait",
            shows="Turns that wait for a step: their audio is complete (`prefill`), or they want their next token "
            "(`decode`). Sampled once a second.",
            bad="`prefill` that rises without an end: the group is behind.",
            unit=Unit.COUNT,
            colors=_PHASES,
            runbook="daybreaksessionslag",
            pictured=True,
            queries=(query("sum by (phase) (daybreak_rank_turns_waiting{POOL})", "{{phase}}"),),
        ),
        Panel(
            title="Time in steps",
            shows="Share of the time in which the model of a group takes a step.",
            bad="Near 100 % for minutes: the group cannot serve more sessions.",
            unit=Unit.RATIO,
            warn=0.9,
            runbook="daybreaksessionslag",
            pictured=True,
            queries=(
                query(
                    "sum by (pool, pod) (rate(daybreak_rank_iteration_busy_seconds_total{POOL}[$__rate_interval]))",
                    "{{pool}} {{pod}}",
                ),
            ),
        ),
        Panel(
            title="Audio worked on",
            shows="Seconds of audio per second that the models process. This is the number of speakers with whom "
            "they keep pace.",
            bad="Below the number of active sessions whose speakers talk, while *Lag* rises.",
            unit=Unit.COUNT,
            runbook="daybreaksessionslag",
            pictured=True,
            queries=(
                query(
                    "sum by (pool) (rate(daybreak_rank_audio_seconds_total{POOL}[$__rate_interval]))",
                    "{{pool}}",
                ),
            ),
        ),
        Panel(
            title="Tokens written",
            shows="Tokens per second that the models write.",
            bad="A fall while *Audio worked on* does not fall: the speakers pause, or the model writes nothing.",
            unit=Unit.PER_SECOND,
            width=12,
            queries=(
                query(
                    "sum by (namespace, pool) (rate(daybreak_rank_tokens_total{POOL,kind='output'}[$__rate_interval])) "
                    "and on (namespace, pool) max by (namespace, pool) (daybreak_sessions{POOL})",
                    "{{pool}}",
                ),
            ),
        ),
        Panel(
            title="Memory of the caches",
            shows="Memory of the caches of the sessions. It is reserved when a group starts.",
            bad="No `free`: the group takes no further session. `used` that rises while the number of sessions does "
            "not: a leak.",
            unit=Unit.BYTES,
            kind=Kind.AREAS,
            colors={".* used": GOOD, ".* free": NONE},
            width=12,
            queries=(
                query("sum by (pool, state) (daybreak_rank_session_cache_bytes{POOL})", "{{pool}} {{state}}"),
            ),
        ),
    ),
)

SESSIONS = Dashboard(
    uid="daybreak-sessions",
    title="Daybreak / Sessions",
    description="Streaming sessions: how many are open, wait or are refused, how late their text is, and what the "
    "groups do.",
    deeper=("daybreak-pool", "daybreak-wake", "daybreak-api"),
    rows=(_SESSIONS, _DELAY, _MODEL),
)
