"""A master, its replicas and the Sentinels that watch them, as real processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import redis

from testkit.valkey import Server
from testkit.waiting import wait_until

MASTER, PASSWORD, SENTINEL_PASSWORD = "daybreak", "of-the-data", "of-the-sentinels"


class Node(Server):
    """A server that may be master or replica."""

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__(
            folder, program, requirepass=PASSWORD, masterauth=PASSWORD, repl_diskless_sync_delay="0"
        )

    def client(self, **options: Any) -> redis.Redis:
        return super().client(password=PASSWORD, **options)


class Sentinel(Server):
    """A Sentinel. It keeps what it knows in its own configuration file."""

    def watch(self, master: Node, *, quorum: int) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "sentinel.conf").write_text(
            f"""
            port {self.port}
            bind 127.0.0.1
            dir {self.folder}
            requirepass {SENTINEL_PASSWORD}
            sentinel sentinel-pass {SENTINEL_PASSWORD}
            sentinel monitor {MASTER} 127.0.0.1 {master.port} {quorum}
            sentinel auth-pass {MASTER} {PASSWORD}
            sentinel down-after-milliseconds {MASTER} 1000
            sentinel failover-timeout {MASTER} 5000
            """
        )
        self.start()

    def start(self) -> None:
        command = [str(self.program), str(self.folder / "sentinel.conf"), "--sentinel"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._answers, 60, f"the Sentinel on port {self.port}")

    def client(self, **options: Any) -> redis.Redis:
        return super().client(password=SENTINEL_PASSWORD, **options)

    def others(self) -> tuple[int, int]:
        """How many other Sentinels and how many replicas it knows."""
        with self.client() as client:
            known = client.sentinel_masters()[MASTER]
        return known["num-other-sentinels"], known["num-slaves"]

    def master_port(self) -> int:
        with self.client() as client:
            return int(client.sentinel_get_master_addr_by_name(MASTER)[1])


class Watched:
    """One master, two replicas, three Sentinels with a quorum of two."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.nodes = [Node(folder / f"node-{number}", program) for number in range(3)]
        self.sentinels = [Sentinel(folder / f"sentinel-{number}", program) for number in range(3)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        first, *replicas = self.nodes
        for node in replicas:
            with node.client() as client:
                client.replicaof("127.0.0.1", first.port)
            wait_until(lambda one=node: self._follows(one), 60, "the replica's first copy")
        for sentinel in self.sentinels:
            sentinel.watch(first, quorum=2)
        for sentinel in self.sentinels:
            wait_until(lambda one=sentinel: one.others() == (2, 2), 60, "the Sentinels to know each other")

    def stop(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.kill()

    @property
    def settings(self) -> dict[str, Any]:
        """The section ``redis`` of the settings; the URL's host is nowhere."""
        return {
            "url": f"redis://:{PASSWORD}@nowhere.invalid/0",
            "sentinels": ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels),
            "sentinel_master": MASTER,
            "sentinel_password": SENTINEL_PASSWORD,
        }

    @property
    def master(self) -> Node:
        """Whom the Sentinels call so now."""
        port = self.sentinels[0].master_port()
        return next(node for node in self.nodes if node.port == port)

    def wait_master_other_than(self, old: Node) -> Node:
        """The new master, once it takes writes."""
        wait_until(lambda: self.master is not old and self.is_master(self.master), 60, "a new master")
        return self.master

    def is_master(self, node: Node) -> bool:
        """Whether it thinks so itself; ``False`` also while it is away."""
        try:
            with node.client(socket_timeout=5) as client:
                return bool(client.role()[0] == b"master")
        except redis.RedisError:
            return False

    def _follows(self, node: Node) -> bool:
        with node.client() as client:
            return client.info("replication")["master_link_status"] == "up"
