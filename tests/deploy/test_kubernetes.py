"""The manifests: against Kubernetes' schemas, each other, and the program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Match

from receiver import build
from receiver.config import Secret, Settings, read
from submitter.units import seconds
from tests.deploy.targets import DEPLOY, block, documents
from tests.deploy.test_docker import last
from tests.docs.program import check
from tests.support import needed

FOLDER = DEPLOY / "kubernetes"
[KUSTOMIZATION] = documents(FOLDER / "kustomization.yaml")
MANIFESTS = {
    path.name: document
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in documents(path)
}
GENERATED = {each["name"]: each for each in KUSTOMIZATION["configMapGenerator"]}
VERSIONS = ("1.30", "1.37")
"""The oldest, which the README names, and the newest whose schemas are there."""


def kind(name: str) -> list[dict[str, Any]]:
    return [each for each in MANIFESTS.values() if each["kind"] == name]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every template of pods, with the name of what makes them."""
    for each in MANIFESTS.values():
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            yield each["metadata"]["name"], template


PODS = dict(pods())
CONTAINERS = {
    f"{name}/{container['name']}": container
    for name, pod in PODS.items()
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
}


def selected(labels: dict[str, str]) -> list[str]:
    """Whose pods have these labels."""
    return [
        name
        for name, pod in PODS.items()
        if labels and labels.items() <= pod["metadata"]["labels"].items()
    ]


def test_kustomization_lists_the_files_that_are_there() -> None:
    """No manifest is left out, none is missing."""
    generated = [name for each in GENERATED.values() for name in each.get("files", ())]
    listed = {*KUSTOMIZATION["resources"], *generated, "kustomization.yaml", "README.md"}
    assert listed == {path.name for path in FOLDER.iterdir()}
    assert list(MANIFESTS) == sorted(KUSTOMIZATION["resources"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_the_manifest(name: str, version: str) -> None:
    """Its own schema, without unknown keys."""
    validate = needed.module("kubernetes_validate")
    assert validate.validate(MANIFESTS[name], version, strict=True) == version
    assert f"Kubernetes {VERSIONS[0]} or newer" in (FOLDER / "README.md").read_text()


def test_kustomize_renders_what_is_applied(tmp_path: Path) -> None:
    """Every reference to what is generated is led to its real name, in one namespace."""
    needed.programs("kubectl")
    validate = needed.module("kubernetes_validate")
    command = ["kubectl", "kustomize", str(FOLDER)]
    rendered = tmp_path / "rendered.yaml"
    rendered.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    found = documents(rendered)
    assert len(found) == len(MANIFESTS) + len(GENERATED)
    for each in found:
        validate.validate(each, VERSIONS[1], strict=True)
        assert each["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
    maps = {each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap"}
    text = rendered.read_text()
    assert {*re.findall(r"configMapRef:\n +name: (\S+)", text)} <= maps
    assert {*re.findall(r"configMap:\n +name: (\S+)", text)} <= maps
    [image] = KUSTOMIZATION["images"]
    assert {*re.findall(r"image: (\S+)", text)} == {f"{image['newName']}:{image['newTag']}"}


def test_selectors_select_the_pods_that_they_mean() -> None:
    """Deployments, spread, service and budget: each finds the pods of one workload alone."""
    for each in kind("Deployment"):
        name = each["metadata"]["name"]
        spec = each["spec"]["template"]["spec"]
        [spread] = spec["topologySpreadConstraints"]
        for selector in (each["spec"]["selector"], spread["labelSelector"]):
            assert selected(selector["matchLabels"]) == [name]
    for each in (*kind("Service"), *kind("PodDisruptionBudget")):
        selector = each["spec"]["selector"]
        name = each["metadata"]["name"]
        assert selected(selector.get("matchLabels", selector)) == [name]


def test_ports_lead_from_the_ingress_to_the_program() -> None:
    """Ingress, service, container, image and default setting agree."""
    [ingress], [service] = kind("Ingress"), kind("Service")
    [served] = service["spec"]["ports"]
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["name"] == service["metadata"]["name"]
            assert backend["port"]["name"] == served["name"]
    [name] = selected(service["spec"]["selector"])
    [port] = CONTAINERS[f"{name}/{name}"]["ports"]
    assert served["targetPort"] == port["name"]
    assert port["containerPort"] == Settings().port == int(last("EXPOSE"))


def test_hosts_agree() -> None:
    """The ingress, its certificate and the public URL have one host."""
    [ingress] = kind("Ingress")
    [rule], [tls] = ingress["spec"]["rules"], ingress["spec"]["tls"]
    literals = dict(each.split("=", 1) for each in GENERATED["settings"]["literals"])
    assert literals["WAVEHOOK_PUBLIC_URL"] == f"https://{rule['host']}"
    assert tls["hosts"] == [rule["host"]]


async def test_probes_and_ingress_name_routes_of_the_app(tmp_path: Path) -> None:
    """Each probe is answered 200 by the real app, and webhooks pass the ingress."""
    parts = build.build(Settings(wavespeed_secrets=(Secret("whsec_a2V5"),), directory=tmp_path))
    assert parts.app is not None
    probes = [
        (container["name"], probe["httpGet"])
        for container in CONTAINERS.values()
        for word, probe in container.items()
        if word.endswith("Probe")
    ]
    assert {probe["path"] for _, probe in probes} == {"/livez", "/readyz"}
    try:
        transport = httpx.ASGITransport(parts.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
            for name, probe in probes:
                assert (await client.get(probe["path"])).status_code == 200
                ports = [port["name"] for port in CONTAINERS[f"{name}/{name}"]["ports"]]
                assert ports == [probe["port"]]
    finally:
        assert parts.lifecycle is not None
        await parts.lifecycle.stop()
    [ingress] = kind("Ingress")
    paths = [path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert paths == ["/webhooks/", "/livez"]
    scope = {"type": "http", "method": "POST", "path": "/webhooks/wavespeed", "root_path": ""}
    assert any(route.matches(scope)[0] is Match.FULL for route in parts.app.routes)


def test_secrets_are_those_that_the_readme_makes() -> None:
    """Each key that a pod refers to is made, and each that is made is referred to."""
    made = block("kubernetes", "bash", "create secret generic")
    found = re.search(r"create secret generic ([\w-]+)", made)
    assert found is not None
    references = [
        entry["valueFrom"]["secretKeyRef"]
        for container in CONTAINERS.values()
        for entry in container["env"]
    ]
    assert {each["name"] for each in references} == {found[1]}
    assert {each["key"] for each in references} == {*re.findall(r"--from-literal=([\w-]+)=", made)}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_read_settings_without_a_fault(name: str) -> None:
    """Each command exists, and takes the settings that its container has."""
    container = CONTAINERS[name]
    check(container["args"])
    [source] = container["envFrom"]
    literals = GENERATED[source["configMapRef"]["name"]]["literals"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "config"]
    environ = dict(each.split("=", 1) for each in literals)
    environ["WAVEHOOK_CONFIG"] = environ["WAVEHOOK_CONFIG"].replace(mount["mountPath"], str(FOLDER))
    environ |= {entry["name"]: VALUES[entry["name"]] for entry in container["env"]}
    reading = read(environ, cwd=FOLDER)
    assert reading.faults == ()
    assert reading.settings.dispatch == "external"


VALUES = {
    "WAVEHOOK_DATABASE": "postgresql://wavehook@database/wavehook",
    "WAVEHOOK_SEAL_KEYS": "a-key",
    "WAVEHOOK_WAVESPEED_SECRETS": "whsec_a2V5",
    "WAVEHOOK_ADMIN_TOKEN": "a long random text",
    "WAVESPEED_API_KEY": "a-key",
}


@pytest.mark.parametrize("name", PODS)
def test_pods_keep_to_the_restricted_standard(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    pod = PODS[name]["spec"]
    user = int(last("USER").partition(":")[0])
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {
        "configMap",
        "emptyDir",
    }
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert pod["serviceAccountName"] in {
        each["metadata"]["name"] for each in kind("ServiceAccount")
    }
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("each", kind("Deployment"), ids=lambda each: each["metadata"]["name"])
def test_time_to_stop_is_enough(each: dict[str, Any]) -> None:
    """F40: the pause before the stop, requests for the grace time, and then handlers for it."""
    literals = dict(each.split("=", 1) for each in GENERATED["settings"]["literals"])
    pod = each["spec"]["template"]["spec"]
    [container] = pod["containers"]
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needs = pause + 2 * seconds(literals["WAVEHOOK_GRACE"])
    assert pod["terminationGracePeriodSeconds"] > needs


def test_a_budget_leaves_room_to_drain_a_node() -> None:
    """Fewer pods have to stay than there are."""
    for budget in kind("PodDisruptionBudget"):
        [name] = selected(budget["spec"]["selector"]["matchLabels"])
        [workload] = [each for each in kind("Deployment") if each["metadata"]["name"] == name]
        assert 0 < budget["spec"]["minAvailable"] < workload["spec"]["replicas"]
