"""The files under deploy/: they parse, fit together, and name commands and settings that exist."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from lungfish.runtime.cli.main import main
from lungfish.runtime.http.access import parse_keys
from lungfish.runtime.settings import HostSettings
from tests.packaging.tree import ROOT

KUBERAY = sorted((ROOT / "deploy" / "kuberay").glob("*.yaml"))
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def documents() -> list[dict[str, Any]]:
    return [found for path in KUBERAY for found in yaml.safe_load_all(path.read_text("utf-8"))]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents() if document["kind"] == kind]


def pods() -> list[dict[str, Any]]:
    templates = [each["spec"]["template"] for kind in ("Deployment", "StatefulSet") for each in of_kind(kind)]
    (cluster,) = of_kind("RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [*templates, *(group["template"] for group in groups)]


def containers() -> list[dict[str, Any]]:
    return [container for pod in pods() for container in pod["spec"]["containers"]]


def commands() -> list[list[str]]:
    """Every ``lungfish …`` that is run somewhere."""
    found = [list(map(str, container.get("command", ()))) for container in containers()]
    for unit in UNITS:
        lines = unit.read_text("utf-8").replace("\\\n", " ").splitlines()
        found += [shlex.split(line.partition("=")[2]) for line in lines if line.startswith("Exec")]
    return [command[1:] for command in found if command and command[0].rpartition("/")[2] == "lungfish"]


def test_there_is_everything() -> None:
    assert len(KUBERAY) == 4
    assert len(UNITS) == 4
    assert len(commands()) >= 6


def test_objects_are_complete() -> None:
    names = [(document["kind"], document["metadata"]["name"]) for document in documents()]
    assert len(names) == len(set(names))
    assert all(document["apiVersion"] for document in documents())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_are_ones_that_lungfish_has(command: list[str]) -> None:
    known = main.commands[command[0]]
    context = known.make_context(command[0], command[1:], resilient_parsing=False)
    assert not context.args


def test_the_store_is_durable_and_keeps_everything() -> None:
    (configuration,) = of_kind("ConfigMap")
    (valkey,) = (unit for unit in UNITS if "valkey" in unit.name)
    for text in (configuration["data"]["valkey.conf"], valkey.read_text("utf-8")):
        for setting in ("appendonly yes", "appendfsync always", 'save ""', "maxmemory-policy noeviction"):
            assert setting in text


def test_what_is_named_is_there() -> None:
    (secret,) = of_kind("Secret")
    used = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for container in containers()
        for each in container.get("env", ())
        if "valueFrom" in each
    }
    assert {name for name, _ in used} == {secret["metadata"]["name"]}
    assert {key for _, key in used} <= set(secret["stringData"])
    services = {service["metadata"]["name"] for service in of_kind("Service")}
    host = re.search(r"@([\w-]+):", secret["stringData"]["redis-url"])
    assert host is not None
    assert host[1] in services
    password = secret["stringData"]["valkey.conf"].split()[1]
    assert f":{password}@" in secret["stringData"]["redis-url"]
    assert [key.name for key in parse_keys(secret["stringData"]["http-keys"])] == ["prometheus", "ops"]


def test_only_what_may_reaches_the_store() -> None:
    (policy,) = of_kind("NetworkPolicy")
    (source,) = policy["spec"]["ingress"][0]["from"]
    wanted = source["podSelector"]["matchLabels"].items()
    for pod in pods():
        labels = pod["metadata"]["labels"]
        assert wanted <= labels.items() or labels == policy["spec"]["podSelector"]["matchLabels"]


def test_services_select_pods() -> None:
    labels = [pod["metadata"]["labels"].items() for pod in pods()]
    for service in of_kind("Service"):
        assert any(service["spec"]["selector"].items() <= own for own in labels)


def test_probes_ask_what_the_server_answers() -> None:
    source = (ROOT / "runtime" / "http" / "probes.py").read_text("utf-8")
    (deployment,) = of_kind("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert f'"{container[probe]["httpGet"]["path"]}"' in source


def test_whoever_runs_hosts_may_finish_their_turns() -> None:
    drain_s = HostSettings().drain_s
    (cluster,) = of_kind("RayCluster")
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > drain_s + 20
        for container in pod["containers"]:
            *_, script = container["lifecycle"]["preStop"]["exec"]["command"]
            drain, _, stop = script.partition("; ")
            words = shlex.split(drain)
            assert words[0] == "timeout"
            assert drain_s < int(words[1]) < pod["terminationGracePeriodSeconds"]
            assert words[2:4] == ["lungfish", "drain"]
            assert not main.commands["drain"].make_context("drain", words[4:]).args
            assert stop == "ray stop"
    for unit in UNITS:
        if "dev" in unit.name or "ray" in unit.name:
            parsed = read_unit(unit)
            assert int(parsed["Service"]["TimeoutStopSec"]) > drain_s + 20


def read_unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(path.read_text("utf-8"))
    return parsed


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_complete_and_wait_for_the_store(unit: Path) -> None:
    parsed = read_unit(unit)
    assert parsed["Unit"]["Description"]
    assert parsed["Install"]["WantedBy"] == "multi-user.target"
    assert parsed["Service"]["User"] == "lungfish"
    if "valkey" not in unit.name:
        assert parsed["Unit"]["After"] == "lungfish-valkey.service"
        # No name that would bring a store of its own into being beside that one.
        assert "LUNGFISH_REDIS_URL=redis://127.0.0.1:6390" in unit.read_text("utf-8")
