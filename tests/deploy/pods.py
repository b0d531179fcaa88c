"""Looks into Kubernetes objects: their pods, containers and environments, and what the restricted profile asks."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.deploy.commands import Run
from tests.deploy.files import Document

OUR_IMAGES = {"taximeter-sidecar": "sidecar", "taximeter-flusher": "flusher"}


class Pod(NamedTuple):
    """A pod template: the object that it belongs to, and its spec."""

    owner: str
    spec: Document

    @property
    def containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods(objects: list[Document]) -> Iterator[Pod]:
    """Yields the pod templates of all objects."""
    for one in objects:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            yield Pod(f"{one['kind']}/{one['metadata']['name']}", template["spec"])


def our_image(container: Document) -> str | None:
    """Returns `sidecar` or `flusher`, or None for somebody else's image."""
    return OUR_IMAGES.get(container["image"].partition(":")[0])


def run_of(container: Document, objects: list[Document], defaults: dict[str, str]) -> Run:
    """Returns what a container of ours runs, with the variables of its image and of its ConfigMaps."""
    environment = dict(defaults)
    for source in container.get("envFrom", ()):
        name = source["configMapRef"]["name"]
        environment |= next(one["data"] for one in objects if one["metadata"]["name"] == name)
    environment |= {variable["name"]: variable["value"] for variable in container.get("env", ())}
    image = our_image(container)
    if image is None:
        raise ValueError(f"{container['image']} is not ours")
    return Run(image, container["args"], environment)


def unmounted_files(container: Document, pod: Pod, environment: dict[str, str]) -> list[str]:
    """Returns the variables that name a file which no Secret puts there."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
    files = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container.get("volumeMounts", ())
        for item in volumes.get(mount["name"], {}).get("secret", {}).get("items", ())
    }
    return [name for name, value in environment.items() if name.endswith("_FILE") and value not in files]


def breaches(pod: Pod) -> list[str]:
    """Returns what keeps a pod from the restricted profile of the Pod Security Standards, and from ours on top."""
    found = [f"{pod.owner}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key)]
    if pod.spec.get("automountServiceAccountToken") is not False:
        found.append(f"{pod.owner}: gets a service account token")
    allowed = {"name", "emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected", "downwardAPI"}
    found += [
        f"{pod.owner}: volume {volume['name']}" for volume in pod.spec.get("volumes", ()) if set(volume) - allowed
    ]
    whole = pod.spec.get("securityContext", {})
    for container in pod.containers:
        where = f"{pod.owner} {container['name']}"
        context = whole | container.get("securityContext", {})
        found += [f"{where}: {problem}" for problem in _context_breaches(context)]
        found += [f"{where}: no {part}" for part in _missing_resources(container)]
    return found


def _context_breaches(context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsNonRoot") is not True or int(context.get("runAsUser", 0)) < 10_000:
        yield "may run as root, or as a user below 10000"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root file system"


def _missing_resources(container: Document) -> Iterator[str]:
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for unit in ("cpu", "memory"):
            if unit not in resources.get(kind, {}):
                yield f"{kind}.{unit}"
