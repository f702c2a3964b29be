"""Ray Serve's request router: which replica answers a request."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    ReplicaResult,
    RequestRouter,
    RunningReplica,
)

from edge_llm.server.cluster.call import Call
from edge_llm.server.cluster.prefixes import Affinity, Prefix, instance_tag


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # untyped where Ray is not installed
    """Sends a request to the replica that has computed what it begins with, unless that one has
    much more to do than another (`Affinity`); one that goes on from a stored response, to the
    replica that has it."""

    def initialize_state(self, slack: int = 4, **kwargs: Any) -> None:
        """Take the settings: ``slack`` is that of `Affinity`."""
        self._affinity = Affinity(slack)
        self._running: dict[str, int] = {}  # requests from here, by replica

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replicas, each a rank of its own, the one to ask first in front."""
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        prefix = Prefix()
        if pending_request is not None:
            # Where all have as much to do as they take, the next look comes after a pause.
            pending_request.routing_context.should_backoff = True
            prefix = _prefix(pending_request)
        if prefix.instance:
            for name, replica in replicas.items():
                if instance_tag(name) == prefix.instance:
                    return [[replica]]
        loads = {
            name: max(
                self.replica_queue_len_cache.get(replica.replica_id) or 0,
                self._running.get(name, 0),
            )
            for name, replica in replicas.items()
        }
        return [[replicas[name]] for name in self._affinity.ranked(prefix, loads)]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult
    ) -> None:
        """Note where a request goes."""
        name = replica_id.unique_id
        self._affinity.routed(_prefix(pending_request), name)
        self._running[name] = self._running.get(name, 0) + 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Note that a request has ended."""
        name = replica_id.unique_id
        self._running[name] = max(0, self._running.get(name, 0) - 1)


def _prefix(request: PendingRequest) -> Prefix:
    call = request.args[0] if request.args else None
    return call.prefix if isinstance(call, Call) else Prefix()
