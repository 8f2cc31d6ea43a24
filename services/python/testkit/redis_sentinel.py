"""A master, its replicas and their Sentinels, as real processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import redis

from testkit.valkey import Server
from testkit.waiting import wait_until

MASTER, PASSWORD, SENTINEL_PASSWORD = "daybreak", "of-the-data", "of-the-sentinels"


class Node(Server):
    """A server that can be a master or a replica."""

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__(
            folder, program, requirepass=PASSWORD, masterauth=PASSWORD, repl_diskless_sync_delay="0"
        )

    def client(self, **options: Any) -> redis.Redis:
        return super().client(password=PASSWORD, **options)


class Sentinel(Server):
    """A Sentinel, which keeps its state in its configuration file."""

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
        wait_until(self._responds, 60, f"the Sentinel on port {self.port}")

    def client(self, **options: Any) -> redis.Redis:
        return super().client(password=SENTINEL_PASSWORD, **options)

    def known_peers(self) -> tuple[int, int]:
        """How many other Sentinels this Sentinel knows, and how many replicas."""
        with self.client() as client:
            known = client.sentinel_masters()[MASTER]
        return known["num-other-sentinels"], known["num-slaves"]

    def master_port(self) -> int:
        with self.client() as client:
            return int(client.sentinel_get_master_addr_by_name(MASTER)[1])


class SentinelCluster:
    """One master, two replicas, three Sentinels with a quorum of two."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.nodes = [Node(folder / f"node-{number}", program) for number in range(3)]
        self.sentinels = [Sentinel(folder / f"sentinel-{number}", program) for number in range(3)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        master, *replicas = self.nodes
        for node in replicas:
            with node.client() as client:
                client.replicaof("127.0.0.1", master.port)
            wait_until(lambda replica=node: self._is_in_sync(replica), 60, "the replica's first sync")
        for sentinel in self.sentinels:
            sentinel.watch(master, quorum=2)
        for sentinel in self.sentinels:
            wait_until(
                lambda peer=sentinel: peer.known_peers() == (2, 2), 60, "the Sentinels to know each other"
            )

    def stop(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.kill()

    @property
    def settings(self) -> dict[str, Any]:
        """The section ``redis`` of the settings. The URL has no real host: only the Sentinels know the master."""
        return {
            "url": f"redis://:{PASSWORD}@nowhere.invalid/0",
            "sentinels": ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels),
            "sentinel_master": MASTER,
            "sentinel_password": SENTINEL_PASSWORD,
        }

    @property
    def master(self) -> Node:
        """The node that the Sentinels currently report as master."""
        port = self.sentinels[0].master_port()
        return next(node for node in self.nodes if node.port == port)

    def wait_master_other_than(self, old: Node) -> Node:
        """Wait for a new master that accepts writes."""
        wait_until(lambda: self.master is not old and self.is_master(self.master), 60, "a new master")
        return self.master

    def is_master(self, node: Node) -> bool:
        """Whether the node considers itself the master; ``False`` while it is unreachable."""
        try:
            with node.client(socket_timeout=5) as client:
                return bool(client.role()[0] == b"master")
        except redis.RedisError:
            return False

    def _is_in_sync(self, node: Node) -> bool:
        with node.client() as client:
            return client.info("replication")["master_link_status"] == "up"
