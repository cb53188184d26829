"""A recipe as objects of Kubernetes: a JobSet with a job a stage, or a PyTorchJob of Kubeflow's training operator.

A JobSet (jobset.x-k8s.io/v1alpha2, from 0.8 on) knows which job waits for which, so no stage holds the machines of
another. A PyTorchJob (kubeflow.org/v1) is one set of pods: its first one also shards, evaluates and reports. The recipe
stands in a ConfigMap; its relative paths are those of a volume that all pods mount (ReadWriteMany).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.launch.plan import Job, data_sets
from advgen.launch.secrets import check_variables
from advgen.launch.yaml_text import documents
from advgen.strict_config import configuration, dump_yaml

RECIPE = Path("/etc/advgen/recipe.yaml")
_VOLUME = "/advgen"
_SCRIPTS = "/opt/advgen/cloud"
_PORT = 29500
# The image's user; the Dockerfile says the same.
_USER = 10001
# A ConfigMap holds at most 1 MiB.
_MOST_BYTES = 1 << 20


@configuration
class Kubernetes:
    """A cluster, and what a pod asks of it."""

    kind: Literal["kubernetes"]
    """Tells these settings from those of other machines."""
    image: str
    """Of the repository's Dockerfile, where the cluster pulls it, with a tag or digest."""
    claim: str
    """PersistentVolumeClaim (ReadWriteMany) in which shards and runs lie."""
    operator: Literal["jobset", "pytorchjob"] = "jobset"
    """Which of the two is installed."""
    namespace: str | None = None
    """Null for the context's own."""
    nodes: int = 1
    """Pods that train."""
    gpus_per_node: int = 8
    """GPUs of each; metrics take one, other stages none."""
    cpus: int = 8
    """Cores of each pod but the report's, which takes one."""
    memory_gib: int = 64
    """Memory of each pod but the report's, which takes 8 GiB."""
    shared_memory_gib: int = 8
    """Of a pod's memory, for /dev/shm, over which NCCL's ranks talk."""
    restarts: int = 20
    """Pods that failed are begun again, so many in all; those that lost their node do not count."""
    grace_seconds: int = 120
    """Time to write a checkpoint when a pod is to leave its node."""
    secret: str | None = None
    """A Secret whose keys become variables of the pods, as WANDB_API_KEY; made by `kubectl create secret generic`."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that the nodes of pods with GPUs must have."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every pod, as NCCL_SOCKET_IFNAME; no secrets."""

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus", "memory_gib", "shared_memory_gib", "grace_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.gpus_per_node < 0 or self.restarts < 0:
            raise ValueError("gpus_per_node and restarts must not be negative")
        for name in ("claim", "namespace", "secret"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value):
                raise ValueError(f"{name} must be a name of Kubernetes: small letters, digits, '-' and '.'")
        check_variables(self.environment)

    @property
    def ranks(self) -> int:
        """Processes that train, one a GPU; one a pod without GPUs."""
        return self.nodes * max(1, self.gpus_per_node)


def manifest(recipe: Recipe, jobs: Sequence[Job], cluster: Kubernetes) -> str:
    """All objects, for ``kubectl apply``.

    Args:
        recipe: whose stages.
        jobs: planned with the recipe at :data:`RECIPE`.
        cluster: where.

    Raises:
        UserError: the recipe is too long for a ConfigMap.
    """
    text = dump_yaml(recipe)
    if len(text.encode()) > _MOST_BYTES:
        raise UserError(f"{recipe.name}: the recipe is longer than 1 MiB, which is what a ConfigMap holds. Shorten it.")
    name = object_name(recipe.name)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(name, recipe, cluster)}
    made = _jobset if cluster.operator == "jobset" else _pytorchjob
    return documents([{**config, "data": {RECIPE.name: text}}, made(name, recipe, jobs, cluster)])


def command(file: Path) -> list[str]:
    """What hands the file in."""
    return ["kubectl", "apply", "--filename", str(file)]


def object_name(name: str) -> str:
    """A run's name as Kubernetes takes it (RFC 1123, 40 characters); with a digest where it had to change."""
    fitting = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    if fitting == name:
        return name
    return f"{fitting[:33].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _metadata(name: str, recipe: Recipe, cluster: Kubernetes) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "advgen", "app.kubernetes.io/instance": name}
    about = {"name": name, "labels": labels, "annotations": {"advgen/run": recipe.name}}
    return about if cluster.namespace is None else {**about, "namespace": cluster.namespace}


def _jobset(name: str, recipe: Recipe, jobs: Sequence[Job], cluster: Kubernetes) -> dict[str, Any]:
    replicated: list[dict[str, Any]] = []
    for job in jobs:
        pods = cluster.nodes if job.many else 1
        gpus = {"train": cluster.gpus_per_node, "evaluate": min(1, cluster.gpus_per_node)}.get(job.stage, 0)
        if job.many:
            container = _training([f"{_SCRIPTS}/node.sh", *job.arguments[1:]], recipe, cluster)
            # The number that an Indexed job gives its pod; the first pod has a name of its own in the JobSet's service.
            index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            container["env"] += [
                {"name": "NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": index}}},
                {"name": "MASTER_ADDR", "value": f"{name}-train-0-0.{name}"},
                {"name": "MASTER_PORT", "value": str(_PORT)},
            ]
        else:
            container = _container("advgen", ["advgen", *job.arguments], gpus, cluster)
            if job.stage == "report":
                small = {"cpu": "1", "memory": "8Gi"}
                container["resources"] = {"requests": small, "limits": small}
        spec = {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": cluster.restarts,
            # Bad input stays bad; a lost node is nobody's fault.
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "FailJob", "onExitCodes": {"containerName": "advgen", "operator": "In", "values": [2]}},
                ]
            },
            "template": {"spec": _pod(name, container, gpus, cluster, restart="Never")},
        }
        entry: dict[str, Any] = {"name": job.stage, "replicas": 1, "template": {"spec": spec}}
        if replicated:
            entry["dependsOn"] = [{"name": replicated[-1]["name"], "status": "Complete"}]
        replicated.append(entry)
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(name, recipe, cluster),
        "spec": {"network": {"enableDNSHostnames": True}, "replicatedJobs": replicated},
    }


def _pytorchjob(name: str, recipe: Recipe, jobs: Sequence[Job], cluster: Kubernetes) -> dict[str, Any]:
    stages = " ".join(job.stage for job in jobs)
    # The operator sets RANK (of the pod), MASTER_ADDR and MASTER_PORT.
    start = f"NODE_RANK=$RANK exec {_SCRIPTS}/stages.sh {RECIPE}"
    shards = ":".join(each.shards for each in data_sets(recipe) if "://" not in each.shards)

    def replicas(count: int) -> dict[str, Any]:
        container = _training(["/bin/bash", "-c", start], recipe, cluster, name="pytorch")
        container["env"] += [{"name": "STAGES", "value": stages}, {"name": "SHARDS", "value": shards}]
        pod = _pod(name, container, cluster.gpus_per_node, cluster, restart=None)
        # Of exit codes the operator takes those from 128 on (a signal, such as a lost node's) for worth a new try.
        return {"replicas": count, "restartPolicy": "ExitCode", "template": {"spec": pod}}

    roles = {"Master": replicas(1)}
    if cluster.nodes > 1:
        roles["Worker"] = replicas(cluster.nodes - 1)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(name, recipe, cluster),
        "spec": {
            "runPolicy": {"backoffLimit": cluster.restarts, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": roles,
        },
    }


def _training(start: list[str], recipe: Recipe, cluster: Kubernetes, name: str = "advgen") -> dict[str, Any]:
    container = _container(name, start, cluster.gpus_per_node, cluster)
    container["env"] += [
        {"name": "NODES", "value": str(cluster.nodes)},
        {"name": "PROCESSES", "value": str(max(1, cluster.gpus_per_node))},
        {"name": "ADVGEN_RUN", "value": str(recipe.folder)},
    ]
    return container


def _container(name: str, start: list[str], gpus: int, cluster: Kubernetes) -> dict[str, Any]:
    wanted: dict[str, str] = {"cpu": str(cluster.cpus), "memory": f"{cluster.memory_gib}Gi"}
    if gpus:
        wanted["nvidia.com/gpu"] = str(gpus)
    mounts = {"runs": _VOLUME, "recipe": str(RECIPE.parent), "shared-memory": "/dev/shm", "temporary": "/tmp"}
    container: dict[str, Any] = {
        "name": name,
        "image": cluster.image,
        "command": start,
        "workingDir": _VOLUME,
        "env": [{"name": key, "value": value} for key, value in _variables(cluster).items()],
        "resources": {"requests": wanted, "limits": wanted},
        "volumeMounts": [{"name": key, "mountPath": place} for key, place in mounts.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if cluster.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": cluster.secret}}]
    return container


def _variables(cluster: Kubernetes) -> Mapping[str, str]:
    # What programs keep for themselves goes to the pod's own disk: the image's user has no home there.
    return {"HOME": "/tmp", **cluster.environment}


def _pod(config: str, container: dict[str, Any], gpus: int, cluster: Kubernetes, restart: str | None) -> dict[str, Any]:
    memory = {"medium": "Memory", "sizeLimit": f"{cluster.shared_memory_gib}Gi"}
    pod: dict[str, Any] = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER},
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": cluster.claim}},
            {"name": "recipe", "configMap": {"name": config}},
            {"name": "shared-memory", "emptyDir": memory},
            {"name": "temporary", "emptyDir": {}},
        ],
    }
    if restart is not None:
        pod["restartPolicy"] = restart
    if gpus:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        if cluster.node_selector:
            pod["nodeSelector"] = dict(cluster.node_selector)
    return pod
