"""The manifests: rendered by kubectl, valid for the versions that we say, restricted, and nothing in them unknown."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import serving
from sidecar.config import settings_from as sidecar_settings
from sidecar.ingest import STOP_S
from tests.deploy.commands import Run, problems
from tests.deploy.dockerfile import Dockerfile
from tests.deploy.files import DOCKERFILE, KUBERNETES, ROOT, Document, documents
from tests.deploy.pods import Pod, breaches, our_image, pods, run_of, unmounted_files
from tests.deploy.schemas import NEWEST, OLDEST, WITHOUT_NATIVE_SIDECARS, InvalidError, validate

Render = Callable[[Path], list[Document]]

A_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {taximeter-sidecar: inject}}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      initContainers: [{name: first, image: first}]
      containers: [{name: app, image: app}]
      volumes: [{name: own, emptyDir: {}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec:
      containers: [{name: app, image: app}]
"""


@pytest.fixture(scope="session")
def deployment(render: Render, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """A labelled and another Deployment, with the component."""
    directory = tmp_path_factory.mktemp("overlay")
    (directory / "app.yaml").write_text(A_DEPLOYMENT, encoding="utf-8")
    component = os.path.relpath((KUBERNETES / "sidecar").resolve(), directory.resolve())
    (directory / "kustomization.yaml").write_text(
        f"resources: [app.yaml]\ncomponents: [{component}]\n", encoding="utf-8"
    )
    return render(directory)


@pytest.fixture(scope="session", params=["base", "example", "deployment"])
def objects(request: pytest.FixtureRequest, render: Render) -> list[Document]:
    if request.param == "deployment":
        made: list[Document] = request.getfixturevalue("deployment")
        return made
    return render(KUBERNETES / str(request.param))


def _image_variables(image: str) -> dict[str, str]:
    return Dockerfile(DOCKERFILE.read_text(encoding="utf-8")).environment(image)


def _our_containers(objects: list[Document]) -> list[tuple[Pod, Document, Run]]:
    return [
        (pod, container, run_of(container, objects, _image_variables(image)))
        for pod in pods(objects)
        for container in pod.containers
        if (image := our_image(container)) is not None
    ]


def _named(objects: list[Document], kind: str, name: str) -> Document:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid_without_a_field_too_many(objects: list[Document], version: str) -> None:
    for one in objects:
        validate(one, version)


def test_the_check_knows_what_a_version_does_not_have(render: Render) -> None:
    app = _named(render(KUBERNETES / "example"), "StatefulSet", "example-app")
    with pytest.raises(InvalidError, match="'restartPolicy' was unexpected"):
        validate(app, WITHOUT_NATIVE_SIDECARS)


def test_the_check_finds_a_field_with_a_typo(render: Render) -> None:
    flusher = _named(render(KUBERNETES / "base"), "Deployment", "taximeter-flusher")
    flusher["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(InvalidError, match="'livenesProbe' was unexpected"):
        validate(flusher, NEWEST)


def test_every_command_flag_and_variable_exists_and_they_are_enough(objects: list[Document], tmp_path: Path) -> None:
    runs = [run for _, _, run in _our_containers(objects)]
    assert runs
    assert [problem for run in runs for problem in problems(run, tmp_path)] == []


def test_every_file_that_a_variable_names_comes_from_a_secret(objects: list[Document]) -> None:
    for pod, container, run in _our_containers(objects):
        assert unmounted_files(container, pod, dict(run.environment)) == []


def test_no_password_is_in_an_environment(objects: list[Document]) -> None:
    for pod in pods(objects):
        for container in pod.containers:
            assert not [variable for variable in container.get("env", ()) if "secretKeyRef" in str(variable)]
            assert not [source for source in container.get("envFrom", ()) if "secretRef" in source]


@pytest.mark.parametrize("directory", ["base", "example"])
def test_every_pod_keeps_to_the_restricted_profile(directory: str, render: Render) -> None:
    assert [breach for pod in pods(render(KUBERNETES / directory)) for breach in breaches(pod)] == []


def test_a_pod_that_may_do_more_is_noticed(render: Render) -> None:
    changes: list[Callable[[Document], object]] = [
        lambda pod: pod["securityContext"].update(runAsUser=1000),
        lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"),
        lambda pod: pod["containers"][0]["resources"].pop("limits"),
        lambda pod: pod.pop("automountServiceAccountToken"),
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
    ]
    for change in changes:
        flusher = _named(render(KUBERNETES / "base"), "Deployment", "taximeter-flusher")
        change(flusher["spec"]["template"]["spec"])
        assert [breach for pod in pods([flusher]) for breach in breaches(pod)]


def test_namespaces_demand_the_restricted_profile(render: Render) -> None:
    for directory in ("base", "example"):
        namespace = next(one for one in render(KUBERNETES / directory) if one["kind"] == "Namespace")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_probes_and_policies_ask_ports_that_are_listened_on(objects: list[Document]) -> None:
    listening: set[str] = set()
    for _, container, run in _our_containers(objects):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        listening |= ports.keys()
        addresses = {run.environment.get("TAXIMETER_HTTP"), run.environment.get("TAXIMETER_HEALTH_HTTP")}
        assert {f"0.0.0.0:{port}" for port in ports.values()} <= addresses
        probes = [probe for name, probe in container.items() if name.endswith("Probe")]
        assert {probe["httpGet"]["port"] for probe in probes} <= ports.keys()
        assert {probe["httpGet"]["path"] for probe in probes} <= {"/livez", "/readyz"}
    for policy in (one for one in objects if one["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            assert {port["port"] for port in rule["ports"]} <= listening


def test_selectors_select_the_pods_that_they_mean(render: Render) -> None:
    for directory in ("base", "example"):
        objects = render(KUBERNETES / directory)
        labels = [
            (one.get("spec", {}).get("jobTemplate", one)["spec"]["template"]["metadata"]["labels"])
            for one in objects
            if one["kind"] in {"Deployment", "StatefulSet", "Job", "CronJob"}
        ]
        for one in objects:
            spec = one.get("spec", {})
            wanted = spec.get("podSelector", spec.get("selector", {}))
            if one["kind"] in {"NetworkPolicy", "PodDisruptionBudget", "Deployment", "StatefulSet", "Service"}:
                wanted = wanted.get("matchLabels", {} if one["kind"] != "Service" else wanted)
                assert any(wanted.items() <= each.items() for each in labels), one["metadata"]["name"]


def test_what_does_not_go_in_or_out_by_name_is_closed(render: Render) -> None:
    ports = {
        one["metadata"]["name"]: {port["port"] for rule in one["spec"].get("egress", ()) for port in rule["ports"]}
        for one in render(KUBERNETES / "base")
        if one["kind"] == "NetworkPolicy"
    }
    assert ports == {"default-deny": set(), "names-and-postgres": {53, 5432}, "flusher": {6379}, "invoice": {443}}


def test_the_invoice_job_runs_alone_and_waits_when_it_is_told_to(render: Render) -> None:
    spec = _named(render(KUBERNETES / "base"), "CronJob", "taximeter-invoice")["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    actions = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", ())}
    assert actions == {75: "Ignore", 1: "FailJob", 2: "FailJob"}
    # Only its pods see the key.
    users = [pod.owner for pod in pods(render(KUBERNETES / "base")) if "taximeter-stripe" in str(pod.spec)]
    assert users == ["CronJob/taximeter-invoice"]


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_the_sidecar_is_native_shares_its_socket_and_has_time_to_stop(
    kind: str, render: Render, deployment: list[Document]
) -> None:
    objects = deployment if kind == "Deployment" else render(KUBERNETES / "example")
    pod = next(pod for pod in pods(objects) if pod.owner.startswith(kind) and "initContainers" in pod.spec)
    injected = pod.spec["initContainers"][0]
    # It starts before every other container and stays
    assert (injected["name"], injected["restartPolicy"]) == ("taximeter-sidecar", "Always")
    # Its socket lies in a volume that the app can mount, of the group that the pod gets
    socket = next(volume for volume in pod.spec["volumes"] if volume["name"] == "taximeter-socket")
    assert socket["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}
    assert pod.spec["securityContext"]["fsGroup"] == injected["securityContext"]["runAsGroup"]
    mounts = {mount["name"]: mount["mountPath"] for mount in injected["volumeMounts"]}
    environment = {variable["name"]: variable["value"] for variable in injected["env"]}
    assert Path(environment["TAXIMETER_SOCKET"]).parent == Path(mounts["taximeter-socket"])
    assert Path(environment["TAXIMETER_JOURNAL_DIR"]).is_relative_to(mounts["taximeter-journal"])
    # And it is not killed while it stops in order
    stop_s = serving.FINISH_S + 2 * serving._CLOSE_S + STOP_S
    assert pod.spec["terminationGracePeriodSeconds"] >= stop_s + 60


def test_the_volume_holds_the_journal(render: Render, deployment: list[Document], tmp_path: Path) -> None:
    app = _named(render(KUBERNETES / "example"), "StatefulSet", "example-app")
    claim = next(one for one in app["spec"]["volumeClaimTemplates"] if one["metadata"]["name"] == "taximeter-journal")
    volumes = _named(deployment, "Deployment", "app")["spec"]["template"]["spec"]["volumes"]
    node = next(volume for volume in volumes if volume["name"] == "taximeter-journal")
    run = next(run for _, _, run in _our_containers([app]))
    settings = sidecar_settings({}, {**run.environment, "TAXIMETER_REDIS_URL": "redis://nowhere"})
    needed = settings.journal_bytes_max + settings.journal_segment_bytes
    for size in (claim["spec"]["resources"]["requests"]["storage"], node["emptyDir"]["sizeLimit"]):
        assert int(size.removesuffix("Gi")) * 2**30 >= needed
    # A disk with events that are nowhere else does not go away with its pod
    assert set(app["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_only_what_is_labelled_gets_a_sidecar_and_it_keeps_its_own_parts(deployment: list[Document]) -> None:
    app = _named(deployment, "Deployment", "app")["spec"]["template"]["spec"]
    assert [container["name"] for container in app["initContainers"]] == ["taximeter-sidecar", "first"]
    assert "own" in {volume["name"] for volume in app["volumes"]}
    assert app["containers"] == [{"name": "app", "image": "app"}]
    other = _named(deployment, "Deployment", "other")["spec"]["template"]["spec"]
    assert other == {"containers": [{"name": "app", "image": "app"}]}


def test_the_images_are_of_this_version(objects: list[Document]) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for _, container, _ in _our_containers(objects):
        version = container["image"].partition(":")[2]
        assert f'\nversion = "{version}"\n' in pyproject


def test_every_file_is_part_of_a_kustomization() -> None:
    for directory in (path for path in KUBERNETES.iterdir() if path.is_dir()):
        (kustomization,) = documents((directory / "kustomization.yaml").read_text(encoding="utf-8"))
        used = {*kustomization.get("resources", ()), *(patch["path"] for patch in kustomization.get("patches", ()))}
        assert {path.name for path in directory.glob("*.yaml")} == used | {"kustomization.yaml"}
