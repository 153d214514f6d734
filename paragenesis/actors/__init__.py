"""Ray: hosts the stages of the engine as actors. The only folder that imports ray."""

from paragenesis.actors.access import find_token, switched_off
from paragenesis.actors.cluster import cluster_summary, connected
from paragenesis.actors.executor import RayExecutor
from paragenesis.actors.listeners import ray_listeners

__all__ = ["RayExecutor", "cluster_summary", "connected", "find_token", "ray_listeners", "switched_off"]
