"""The dashboard of Ray: its Serve applications and its nodes."""

from __future__ import annotations

from dashboards.model import GPU, Dashboard, Panel, Row, Unit, query

_SERVE = Row(
    title="Serve",
    panels=(
        Panel(
            title="Applications",
            shows="Status of each Serve application: 6 running, 5 deploying, 4 deleting, 3 not started, 2 unhealthy, "
            "1 failed.",
            bad="2 or below: the operator deploys the application again. Serve's message is in the pool's conditions.",
            unit=Unit.COUNT,
            runbook="applicationfailed",
            queries=(
                query("min by (pool, application) (ray_serve_application_status{HERE})", "{{application}}"),
            ),
        ),
        Panel(
            title="Deployments",
            shows="Status of each Serve deployment: 6 healthy, 5 and 4 scaling, 3 updating, 2 unhealthy, 1 failed.",
            bad="2 or below.",
            unit=Unit.COUNT,
            runbook="ranksfail",
            queries=(
                query(
                    "min by (pool, application, deployment) (ray_serve_deployment_status{HERE})",
                    "{{application}} {{deployment}}",
                ),
            ),
        ),
        Panel(
            title="Replicas",
            shows="Replicas of each Serve deployment. A replica of a pool's deployment is a rank. For some "
            "minutes, Ray also exports the metrics of replicas that have ended.",
            bad="Fewer than groups × ranks: ranks are missing. More: ranks have just restarted.",
            unit=Unit.COUNT,
            runbook="ranksfail",
            pictured=True,
            pictured_note="with replicas that ended when a rank died",
            queries=(
                query(
                    "count by (pool, application, deployment) (count by (pool, application, deployment, replica) "
                    "(ray_serve_deployment_replica_starts_total{HERE}))",
                    "{{application}} {{deployment}}",
                ),
            ),
        ),
        Panel(
            title="Control loop of Serve",
            shows="Duration of the last control loop of Serve's controller.",
            bad="Above 1 s: the head's CPU is at its limit.",
            unit=Unit.SECONDS,
            runbook="headnotready",
            alarm=1,
            queries=(
                query("max by (pool) (ray_serve_controller_control_loop_duration_s{HERE})", "{{pool}}"),
            ),
        ),
        Panel(
            title="Start of a replica",
            shows="Mean time from the creation of a replica until Serve saw it ready.",
            bad="Above the time that the model takes to load.",
            unit=Unit.SECONDS,
            runbook="daybreakwakeslow",
            queries=(
                query(
                    "sum by (pool, application) (ray_serve_replica_startup_latency_ms_sum{HERE}) / "
                    "sum by (pool, application) (ray_serve_replica_startup_latency_ms_count{HERE}) / 1000",
                    "{{application}}",
                ),
            ),
        ),
        Panel(
            title="Actors",
            shows="Actors by state. Each rank is an actor.",
            bad="`DEAD` that rises: ranks or Serve's own actors crash. `PENDING_CREATION` that stays: no room.",
            unit=Unit.COUNT,
            runbook="ranksfail",
            queries=(query("sum by (pool, State) (ray_actors{HERE})", "{{pool}} {{State}}"),),
        ),
    ),
)

_NODES = Row(
    title="Nodes",
    panels=(
        Panel(
            title="CPU",
            shows="CPU use of each Ray node, in percent of the node.",
            bad="Near 100 % on a head: Serve slows down. On the node of a group: encoding competes with the ranks.",
            unit=Unit.PERCENT,
            warn=80,
            alarm=95,
            pictured=True,
            queries=(
                query("max by (pool, instance) (ray_node_cpu_utilization{HERE})", "{{pool}} {{instance}}"),
            ),
        ),
        Panel(
            title="Memory",
            shows="Share of its memory that each Ray node uses.",
            bad="Above 95 %: Ray begins to kill its worker processes.",
            unit=Unit.RATIO,
            runbook="outofmemory",
            warn=0.85,
            alarm=0.95,
            pictured=True,
            queries=(
                query(
                    "max by (pool, instance) (ray_node_mem_used{HERE} / ray_node_mem_total{HERE})",
                    "{{pool}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Disk",
            shows="Free space on the disk of each Ray node.",
            bad="Less than a model and its outputs need.",
            unit=Unit.BYTES,
            queries=(query("min by (pool, instance) (ray_node_disk_free{HERE})", "{{pool}} {{instance}}"),),
        ),
        Panel(
            title="GPU",
            shows="Use of each GPU, in percent.",
            bad="Low while the pool's groups are busy: the work waits for CPU, disk or other ranks.",
            unit=Unit.PERCENT,
            queries=(
                query(
                    "max by (pool, instance, GpuIndex) (ray_node_gpus_utilization{HERE})",
                    "{{instance}} GPU {{GpuIndex}}",
                    no_data=GPU,
                ),
            ),
        ),
        Panel(
            title="GPU memory",
            shows="Memory that is used on each GPU.",
            bad="Near the GPU's size before a large task begins.",
            unit=Unit.BYTES,
            runbook="outofmemory",
            queries=(
                query(
                    "max by (pool, instance, GpuIndex) (ray_node_gram_used{HERE}) * 1e6",
                    "{{instance}} GPU {{GpuIndex}}",
                    no_data=GPU,
                ),
            ),
        ),
        Panel(
            title="Network",
            shows="Bytes that each Ray node receives and sends per second.",
            bad="Received bytes at the limit of the network during each wake: models are downloaded again and again.",
            unit=Unit.BYTES_PER_SECOND,
            queries=(
                query(
                    "max by (pool, instance) (ray_node_network_receive_speed{HERE})",
                    "{{pool}} {{instance}} received",
                ),
                query(
                    "max by (pool, instance) (ray_node_network_send_speed{HERE})",
                    "{{pool}} {{instance}} sent",
                ),
            ),
        ),
    ),
)

RAY = Dashboard(
    uid="daybreak-ray",
    title="Daybreak / Ray",
    description="Serve's applications and the nodes of Daybreak's Ray clusters.",
    deeper=("daybreak-pool", "daybreak-wake"),
    rows=(_SERVE, _NODES),
)
