"""The custom resource ``GeneratorPool`` (``daybreak.dev/v1alpha1``) as typed values.

``spec`` is what people, Helm and KEDA write; ``status`` is what the operator alone writes. The status is also
the operator's only memory: drains that are under way, since when the pool is idle, which try of the Serve
application this is. So the operator may die at any moment and continue.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.pools import WAKE_PHASES, WakePhase

GROUP = "daybreak.dev"
VERSION = "v1alpha1"
KIND = "GeneratorPool"
PLURAL = "generatorpools"
Weekday = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


def _instant(value: Any) -> Any:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value


def rfc3339(at: float) -> str:
    """A moment as Kubernetes writes it, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"there is no time zone {name!r}; write one like Europe/Berlin")
    return name


Instant = Annotated[
    float,
    BeforeValidator(_instant),
    AfterValidator(lambda at: round(at, 3)),
    PlainSerializer(rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Seconds since 1970 here, RFC 3339 with milliseconds in Kubernetes."""
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)]
Phase = Literal["Zero", "Suspended", "Waking", "Ready", "Draining", "Replacing", "Paused", "Blocked"]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", validate_default=True
    )


class Resources(_Model):
    """What one rank needs."""

    cpus: float = Field(1.0, ge=0, description="CPUs that Ray reserves for a rank, and its pod requests.")
    gpus: float = Field(
        0.0, ge=0, description="GPUs (`nvidia.com/gpu`) of a rank; whole numbers above 1, or a part of one."
    )
    memory: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
        description="Memory of a rank, such as `24Gi`; absent: as the template says.",
    )


class WarmWindow(_Model):
    """A part of the week in which so many groups stay, whether there is work or not."""

    days: tuple[Weekday, ...] = Field(
        WEEKDAYS, min_length=1, description="Days on which it begins; absent: every day."
    )
    from_: Clock = Field(alias="from", description="Begins at this time of day, `HH:MM`.")
    to: Clock = Field(description="Ends at this time; not after `from`: on the next day.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", max_length=64, description="Name from the IANA database, such as `Europe/Berlin`."
    )
    groups: int = Field(
        ge=0, description="GroupStore that stay; the largest of the windows that are open counts."
    )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.time_zone)


class Idle(_Model):
    """What goes when nothing is wanted."""

    mode: Literal["workers", "cluster"] = Field(
        "workers",
        description="`workers`: the GPU pods go, the head stays warm. `cluster`: the head goes as well.",
    )
    after_seconds: int = Field(
        600, ge=0, description="With `cluster`: the head goes when nothing was wanted for so long."
    )


class Template(_Model):
    """The RayCluster to make: KubeRay's own `spec`, without what the operator sets."""

    labels: dict[str, str] = Field(default_factory=dict, description="Further labels of the RayCluster.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Further annotations of the RayCluster."
    )
    spec: dict[str, Any] = Field(
        description="KubeRay's RayClusterSpec with one worker group. Replicas, hosts and suspension are the operator's."
    )


class PoolSpec(_Model):
    """What is wanted."""

    replicas: int = Field(0, ge=0, description="GroupStore wanted. KEDA writes it through `/scale`.")
    workload: str | None = Field(
        None, min_length=1, description="The workload that it serves; absent: the one of the pool's name."
    )
    kind: PoolKind | None = Field(
        None, description="What its groups do; the workload says so itself, and is checked against this."
    )
    model: str | None = Field(None, min_length=1, description="Folder of the model inside the pods.")
    ranks: int = Field(1, ge=1, le=4096, description="Ranks of one group.")
    hosts_per_group: int = Field(1, ge=1, le=1024, description="Pods of one group; divides `ranks`.")
    resources: Resources = Field(default_factory=Resources, description="What one rank needs.")
    drain_seconds: int = Field(
        30, ge=0, le=86400, description="A busy group that must go may work on for so long, then hands back."
    )
    min_warm: int = Field(0, ge=0, description="GroupStore that always stay, whether there is work or not.")
    warm_schedule: tuple[WarmWindow, ...] = Field(
        (), max_length=32, description="More groups that stay at certain times of the week."
    )
    paused: bool = Field(False, description="The operator changes nothing but the status.")
    idle: Idle = Field(default_factory=Idle, description="What goes when nothing is wanted.")
    ray_cluster: Template = Field(description="The RayCluster to make.")


class Condition(_Model):
    """A condition, as Kubernetes' own objects have them."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(description="One word for programs.")
    message: str = Field("", description="A sentence for people: the cause, and what to do.")
    last_transition_time: Instant
    observed_generation: int = 0


class Drain(_Model):
    """A group that the operator has told to take no more tasks."""

    group: str
    since: Instant
    deadline: Instant = Field(description="From then on it may be removed even while it works.")


class Wake(_Model):
    """The way from zero to a ready group."""

    phase: str = Field(WakePhase.ZERO, description=f"{', '.join(WAKE_PHASES)} or {WakePhase.ZERO}.")
    since: Instant | None = None
    began: Instant | None = Field(None, description="When a group was first wanted.")
    seconds: dict[str, float] = Field(
        default_factory=dict, description="Seconds of each phase of the last wake."
    )


class Application(_Model):
    """Which try of the Serve application this is: one that failed for good comes back only as another."""

    attempt: int = 0
    since: Instant | None = None


class PoolStatus(_Model):
    """What is."""

    replicas: int = Field(0, description="Complete groups: all of their pods run.")
    selector: str = Field("", description="Of the worker pods; never empty.")
    ready: int = Field(0, description="GroupStore that can take tasks or work on one.")
    wanted: int = Field(0, description="GroupStore wanted: `replicas`, and what stays warm.")
    phase: Phase = "Zero"
    wake: Wake = Field(default_factory=Wake)
    conditions: tuple[Condition, ...] = ()
    drains: tuple[Drain, ...] = Field((), description="GroupStore that are about to go.")
    closed: tuple[str, ...] = Field(
        (), description="Hosts on which no new group may work: they are about to go."
    )
    idle_since: Instant | None = Field(None, description="Since when nothing is wanted and nothing runs.")
    serialize_growth: bool = Field(
        False, description="GroupStore are added one by one, after one had formed across two of KubeRay's."
    )
    application: Application = Field(default_factory=Application)
    revision: str = Field("", description="Of the template that is wanted now.")
    observed_generation: int = 0


class SpecInvalidError(ValueError):
    """A spec that Kubernetes took and that means nothing here. Its words name each field and what is wrong with it."""


class PoolObject(_Model):
    """What a pool in Kubernetes has, whether or not its spec can be read."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    deleting: bool = False
    status: PoolStatus = Field(default_factory=PoolStatus)

    @classmethod
    def read(cls, body: Mapping[str, Any], *, status: PoolStatus | None = None) -> PoolObject:
        """The object as the API server gives it; ``status``: the one to believe instead of its own.

        :raises pydantic.ValidationError: for a status of another form.
        """
        meta = body["metadata"]
        if status is None:
            status = PoolStatus.model_validate(body.get("status") or {})
        return PoolObject(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=meta.get("generation", 1),
            deleting=bool(meta.get("deletionTimestamp")),
            status=status,
        )


class GeneratorPool(PoolObject):
    """A pool as it is in Kubernetes."""

    spec: PoolSpec

    @classmethod
    def read(cls, body: Mapping[str, Any], *, status: PoolStatus | None = None) -> GeneratorPool:
        """As above. :raises SpecInvalidError: for a spec of another form."""
        known = PoolObject.read(body, status=status)
        try:
            spec = PoolSpec.model_validate(body.get("spec", {}))
        except ValidationError as exc:
            raise SpecInvalidError(_field_error(exc)) from exc
        return cls(**{name: getattr(known, name) for name in PoolObject.model_fields}, spec=spec)

    @property
    def workload(self) -> str:
        """The workload that it serves."""
        return self.spec.workload or self.name


def _field_error(exc: ValidationError) -> str:
    """Field by field, as people write them: ``spec.warmSchedule[0].timeZone: …``."""
    wrong = []
    for error in exc.errors(include_url=False, include_input=False):
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
        # Raised by a check of ours; pydantic puts "Value error" before its words.
        raised = error.get("ctx", {}).get("error")
        wrong.append(f"spec{at}: {raised if isinstance(raised, Exception) else error['msg']}")
    return "; ".join(wrong)


def dump_status(status: PoolStatus) -> dict[str, Any]:
    """As Kubernetes stores it: camel case, nothing that is absent."""
    return status.model_dump(by_alias=True, exclude_none=True, mode="json")
