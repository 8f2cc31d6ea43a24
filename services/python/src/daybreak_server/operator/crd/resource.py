"""The custom resource ``GeneratorPool`` (``daybreak.dev/v1alpha1``) as typed values.

People, Helm and KEDA write ``spec``; only the operator writes ``status``. The status is also the operator's only
memory: drains in progress, when the pool reached zero, and the deploy attempt of the Serve application. So the
operator may die at any moment and continue from the status.
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

KIND = "GeneratorPool"
PLURAL = "generatorpools"
Weekday = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


def _instant(value: Any) -> Any:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value


def rfc3339(at: float) -> str:
    """A time as Kubernetes writes it, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"unknown time zone {name!r}; use an IANA name such as Europe/Berlin")
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

    cpus: float = Field(
        1.0,
        ge=0,
        description="CPUs that the pod requests for a rank. The ranks of a group reserve all CPUs that Ray counts on "
        "their hosts, which is a whole number for each host.",
    )
    gpus: float = Field(
        0.0, ge=0, description="GPUs (`nvidia.com/gpu`) of a rank: a fraction of one, or a whole number."
    )
    memory: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
        description="Memory of a rank, such as `24Gi`. Default: the template's.",
    )


class WarmWindow(_Model):
    """A part of the week in which a number of groups stay warm, with or without work."""

    days: tuple[Weekday, ...] = Field(
        WEEKDAYS, min_length=1, description="Days on which the window begins. Default: every day."
    )
    from_: Clock = Field(alias="from", description="Time of day at which the window begins, `HH:MM`.")
    to: Clock = Field(
        description="Time of day at which the window ends. If it is not after `from`, the window ends on the next day."
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        "UTC", max_length=64, description="IANA time zone, such as `Europe/Berlin`."
    )
    groups: int = Field(
        ge=0, description="Groups that stay warm. If windows overlap, the largest number counts."
    )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.time_zone)


class Idle(_Model):
    """What stops when no group is wanted."""

    mode: Literal["workers", "cluster"] = Field(
        "workers",
        description="`workers`: the GPU pods stop and the head stays warm. `cluster`: the head stops as well.",
    )
    after_seconds: int = Field(
        600,
        ge=0,
        description="With `cluster`: how many seconds the head stays after the last group has stopped.",
    )


class Template(_Model):
    """The RayCluster to create: KubeRay's own `spec`, without the fields that the operator sets."""

    labels: dict[str, str] = Field(default_factory=dict, description="Additional labels of the RayCluster.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Additional annotations of the RayCluster."
    )
    spec: dict[str, Any] = Field(
        description="KubeRay's RayClusterSpec with one worker group. The operator sets replicas, hosts and suspension."
    )


class PoolSpec(_Model):
    """The desired state."""

    replicas: int = Field(0, ge=0, description="Groups wanted. KEDA writes it through `/scale`.")
    workload: str | None = Field(
        None,
        min_length=1,
        description="The workload that the pool serves. Default: the one with the pool's name.",
    )
    kind: PoolKind | None = Field(
        None, description="How the groups work. If set, it must be the kind that the workload declares."
    )
    target_load: float | None = Field(
        None,
        ge=0.01,
        le=1_000_000,
        description="How many requests each group of a pool of kind `online` should have, or how many sessions of a "
        "pool of kind `sessions`. Groups needed: the requests that wait or run (or the open sessions), divided "
        "by this number and rounded up. Default: the setting `target_load` of the gateways.",
    )
    model: str | None = Field(None, min_length=1, description="Folder of the model inside the pods.")
    ranks: int = Field(1, ge=1, le=4096, description="Ranks of one group.")
    hosts_per_group: int = Field(
        1, ge=1, le=1024, description="Pods of one group. `ranks` must be a multiple of this number."
    )
    resources: Resources = Field(default_factory=Resources, description="What one rank needs.")
    drain_seconds: int = Field(
        30,
        ge=0,
        le=86400,
        description="Seconds that a busy group may keep working once it must stop. Then it releases its task.",
    )
    min_warm: int = Field(0, ge=0, description="Groups that always stay warm, with or without work.")
    warm_schedule: tuple[WarmWindow, ...] = Field(
        (), max_length=32, description="Groups that stay warm at certain times of the week."
    )
    paused: bool = Field(False, description="The operator changes nothing but the status.")
    idle: Idle = Field(default_factory=Idle, description="What stops when no group is wanted.")
    ray_cluster: Template = Field(description="The RayCluster to create.")


class Condition(_Model):
    """A condition, in the form of Kubernetes' own objects."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(description="One word, for programs.")
    message: str = Field("", description="A sentence, for people: the cause and what to do.")
    last_transition_time: Instant
    observed_generation: int = 0


class Drain(_Model):
    """A group that the operator marks to drain: it takes no more tasks."""

    group: str
    since: Instant
    deadline: Instant = Field(description="From then on the group may be removed even if it is busy.")


class WakeStatus(_Model):
    """A wake: the way from zero to a ready group."""

    phase: str = Field(WakePhase.ZERO, description=f"{', '.join(WAKE_PHASES)} or {WakePhase.ZERO}.")
    since: Instant | None = None
    began: Instant | None = Field(None, description="When a group was first wanted.")
    seconds: dict[str, float] = Field(
        default_factory=dict, description="Seconds of each phase of the last wake."
    )


class Application(_Model):
    """The deploy attempt of the Serve application. Serve retries a failed application only with new arguments."""

    attempt: int = 0
    since: Instant | None = None
    revision: str = Field(
        "",
        description="The earlier revision that the deploy attempt belongs to. Empty once the head of the current "
        "revision has reported its own deploy attempt.",
    )


class PoolStatus(_Model):
    """The observed state."""

    replicas: int = Field(0, description="Complete groups: all of their pods run.")
    selector: str = Field("", description="Label selector of the pods of groups; never empty.")
    ready: int = Field(0, description="Groups that can take tasks or requests, or already work on some.")
    wanted: int = Field(
        0,
        description="Groups wanted: the larger of `spec.replicas` and the number of groups that stay warm. If both are "
        "0, one ready group stays while there is work, and the number is 1.",
    )
    phase: Phase = "Zero"
    wake: WakeStatus = Field(default_factory=WakeStatus)
    conditions: tuple[Condition, ...] = ()
    drains: tuple[Drain, ...] = Field((), description="Groups that are being drained.")
    cordoned: tuple[str, ...] = Field(
        (), description="Hosts that take no new group: they are about to be deleted."
    )
    zero_since: Instant | None = Field(
        None, description="When the pool reached zero: no group wanted, no work, no worker."
    )
    serialize_growth: bool = Field(
        False, description="Groups are added one by one, because a group had formed across two replicas."
    )
    application: Application = Field(default_factory=Application)
    revision: str = Field("", description="Hash of the current template.")
    observed_generation: int = 0


class SpecInvalidError(ValueError):
    """A spec that Kubernetes accepted but the operator cannot read. The message names each field and its error."""


class PoolObject(_Model):
    """A pool in Kubernetes without its spec, which may be unreadable."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    deleting: bool = False
    status: PoolStatus = Field(default_factory=PoolStatus)

    @classmethod
    def read(cls, body: Mapping[str, Any], *, status: PoolStatus | None = None) -> PoolObject:
        """Parse the API server's object; ``status`` replaces the object's own status.

        :raises pydantic.ValidationError: if the status does not match the model.
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
    """A pool in Kubernetes."""

    spec: PoolSpec

    @classmethod
    def read(cls, body: Mapping[str, Any], *, status: PoolStatus | None = None) -> GeneratorPool:
        """Parse the object with its spec. :raises SpecInvalidError: if the spec does not match the model."""
        known = PoolObject.read(body, status=status)
        try:
            spec = PoolSpec.model_validate(body.get("spec", {}))
        except ValidationError as exc:
            raise SpecInvalidError(_field_error(exc)) from exc
        return cls(**{name: getattr(known, name) for name in PoolObject.model_fields}, spec=spec)

    @property
    def workload(self) -> str:
        """The workload that the pool serves."""
        return self.spec.workload or self.name


def _field_error(exc: ValidationError) -> str:
    """One entry per field, with its path as in the manifest: ``spec.warmSchedule[0].timeZone: …``."""
    wrong = []
    for error in exc.errors(include_url=False, include_input=False):
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
        # A check of this module raised the error. Use its message, without the "Value error" that pydantic prepends.
        raised = error.get("ctx", {}).get("error")
        wrong.append(f"spec{at}: {raised if isinstance(raised, Exception) else error['msg']}")
    return "; ".join(wrong)


def dump_status(status: PoolStatus) -> dict[str, Any]:
    """The status as Kubernetes stores it: camel case, without absent values."""
    return status.model_dump(by_alias=True, exclude_none=True, mode="json")
