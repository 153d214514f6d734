"""Ray: hosts the stages of the engine as actors. The only folder that imports ray."""

from paragenesis.actors.cluster import cluster_summary
from paragenesis.actors.executor import RayExecutor

__all__ = ["RayExecutor", "cluster_summary"]
