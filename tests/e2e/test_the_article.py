"""The walk through BuildKit on Kubernetes, scenario by scenario, in the order of its telling.

1. Parallel stages: ``test_parallel_stages_*``
2. buildx, with several nodes and platforms: ``test_buildx_*``
3. Rootless Deployment, Service, certificates: ``test_rootless_*``
4. Port-forward, and buildctl with mTLS: ``test_port_forward_*``
5. Other frontends: test_frontends.py
6. Image and cache pushed to a registry: ``test_push_*``
7. Prune, import, all CACHED: ``test_prune_*``, ``test_import_*``
8. Scaled builders share the cache: ``test_scaled_*``
9. Self-signed registries: ``test_self_signed_*``, and every variant in test_registries.py
10. Cache mounts, secrets, SSH: ``test_cache_mount_*``, ``test_secret_*``, ``test_ssh_*``; garbage
    collection is in test_storage.py

Builds take the cache by the flags that the pool hands out, and by nothing else.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from cluster import PROJECT, Api, a_pool
from e2e.clients import (
    BASE,
    SHORT,
    STEPS,
    TOOLS,
    Buildx,
    Built,
    Client,
    Project,
    base_context,
    cached_steps,
    client_of,
    context,
    new_project,
    run,
    ssh_agent,
)
from e2e.pools import address_of, cache_flags, port_forward, scaled, serving, settle, settle_cache
from e2e.registries import Registry, new_authority, serve, trust

PARALLEL = PROJECT / "demo" / "parallel"
"""Four stages that sleep five seconds each and need nothing of each other."""
SLEEPS = 4
"""RUN steps of it."""
PARTS = ("api", "docs", "web", "worker")
MANAGED: Final = "managed"
"""The pool whose cache is in a registry of its own."""
EXTERNAL: Final = "external"
"""The pool whose cache is in a registry that is there."""


@pytest.fixture(scope="module")
def hub(api: Api, shared_namespace: str) -> Registry:
    """A registry with a certificate of its company's own."""
    registry, authority = Registry("hub", shared_namespace), new_authority("hub")
    trust(api, "hub-ca", shared_namespace, authority)
    serve(api, registry, authority)
    return registry


@pytest.fixture(scope="module")
def pools(api: Api, hub: Registry) -> str:
    """The namespace of two pools of one builder each; both know the registry."""
    caches = {
        MANAGED: {"managed": {"storage": {"size": "1Gi"}}},
        EXTERNAL: {"ref": f"{hub.host}/caches"},
    }
    registries = [
        {"host": hub.host, "caBundle": {"configMap": {"name": "hub-ca"}}},
        {"host": "docker.io", "mirrors": [f"{hub.host}/docker-hub"]},
    ]
    common = {"registries": registries}
    api.apply(
        *(
            a_pool(name, hub.namespace, cache={"registry": c}, **common)
            for name, c in caches.items()
        )
    )
    for name in caches:
        settle(api, name, hub.namespace)
        settle_cache(api, name, hub.namespace)
    return hub.namespace


@pytest.fixture
def client(api: Api, pools: str, tmp_path: Path) -> Client:
    """The client of one of the pools, through its Service."""
    return client_of(api, EXTERNAL, pools, tmp_path)


def test_parallel_stages_take_the_time_of_one(client: Client, tmp_path: Path) -> None:
    client.ask("prune", "--all")
    started = time.monotonic()
    out = tmp_path / "out"
    assert cached_steps(client.build(PARALLEL, f"--output=type=local,dest={out}")) == 0
    took = time.monotonic() - started
    print(f"four stages of 5 s each: {took:.1f} s")
    assert 5 <= took < 20
    assert tuple((out / "parts" / name).read_text().strip() for name in PARTS) == PARTS


def test_buildx_creates_lists_uses_and_builds(client: Client, tmp_path: Path) -> None:
    buildx = Buildx(tmp_path / "buildx")
    buildx("create", "--name=remote", *client.node())
    buildx("use", "remote")
    assert "remote*" in buildx("ls")
    folder, out = context(tmp_path / "context", SHORT), tmp_path / "out"
    buildx("build", f"--output={out}", *base_context(), str(folder))
    assert (out / "built").read_text() == "built\n"
    assert "running" in buildx("ls")


def test_buildx_appends_a_node_and_builds_each_platform_on_its_own(
    api: Api, pools: str, tmp_path: Path
) -> None:
    first, second = (client_of(api, name, pools, tmp_path) for name in (MANAGED, EXTERNAL))
    buildx = Buildx(tmp_path / "buildx")
    buildx("create", "--name=pair", *first.node("--platform=linux/amd64"))
    append = ("--append", "--node=second", "--platform=linux/arm64")
    buildx("create", "--name=pair", *second.node(*append))
    buildx("use", "pair")
    listed = buildx("ls")
    assert "pair*" in listed
    assert listed.count("running") >= 2, listed
    folder = context(tmp_path / "context", "FROM scratch\nCOPY file /file\n")
    (folder / "file").write_text("for every platform")
    before = first.builds(), second.builds()
    buildx("build", "--platform=linux/arm64", f"--output={tmp_path / 'out'}", str(folder))
    assert (first.builds(), second.builds()) == (before[0], before[1] + 1)
    both = tmp_path / "both"
    buildx("build", "--platform=linux/amd64,linux/arm64", f"--output={both}", str(folder))
    assert sorted(path.name for path in both.iterdir()) == ["linux_amd64", "linux_arm64"]
    assert (first.builds(), second.builds()) == (before[0] + 1, before[1] + 2)


def test_rootless_deployment_service_and_certificates_are_there(
    api: Api, client: Client, pools: str
) -> None:
    """All that is made by hand otherwise, from one object of a few lines."""
    deployment = api.get("deployment", f"{EXTERNAL}-builder-0", pools)
    service = api.get("service", EXTERNAL, pools)
    assert deployment is not None
    assert service is not None
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image, user = containers[0]["image"], containers[0]["securityContext"]["runAsUser"]
    assert image.endswith("-rootless"), image
    assert user == 1000
    inside = ("exec", "-n", pools, f"deploy/{EXTERNAL}-builder-0", "-c", containers[0]["name"])
    assert api.must(*inside, "--", "id", "-u").strip() == "1000"
    assert [port["port"] for port in service["spec"]["ports"]] == [1234]
    assert client.address == f"tcp://{EXTERNAL}.{pools}.svc:1234"
    for secret in (f"{EXTERNAL}-builder", f"{EXTERNAL}-client-default"):
        found = api.get("secret", secret, pools)
        assert found is not None
        assert {"ca.pem", "cert.pem", "key.pem"} <= set(found["data"])
    workers = client.ask("debug", "workers").splitlines()[1:]
    assert len(workers) == 1
    assert "linux/amd64" in workers[0]


def test_port_forward_lets_buildctl_in_with_its_certificate_only(
    client: Client, pools: str, tmp_path: Path
) -> None:
    folder, out = context(tmp_path / "context", SHORT), tmp_path / "out"
    with port_forward(f"service/{EXTERNAL}", pools) as address:
        client.at(address).build(folder, "--output", f"type=local,dest={out}")
        assert (out / "built").read_text() == "built\n"
        stranger = ["buildctl", "--addr", address, "--tlsservername", "localhost"]
        stranger += ["--tlscacert", f"{client.certificates}/ca.pem"]
        # At the end, because kubectl may give up a forward in which a connection is turned down.
        assert run(*stranger, "debug", "workers").returncode != 0


@pytest.mark.parametrize(
    ("pool", "elsewhere", "tool"), [(MANAGED, EXTERNAL, "buildctl"), (EXTERNAL, MANAGED, "buildx")]
)
def test_push_takes_the_image_and_the_cache_of_all_stages_to_a_registry(
    api: Api, hub: Registry, pools: str, tmp_path: Path, pool: str, elsewhere: str, tool: str
) -> None:
    project = new_project(tmp_path, tool, client_of(api, pool, pools, tmp_path))
    image = f"{hub.host}/team/{pool}:1"
    cache = cache_flags(api, pool, pools, tool, REPOSITORY=f"team/{tool}/pushed")
    pushed = project.build(f"--output=type=image,name={image},push=true", *cache)
    assert pushed.cached == 0
    other = client_of(api, elsewhere, pools, tmp_path)
    text = f"FROM {image} AS pushed\nFROM scratch\nCOPY --from=pushed /program /program\n"
    assert Project(context(tmp_path / "from", text), tool, other).build().program == pushed.program
    project.client.ask("prune", "--all")
    project.edit()
    edited = project.build(*cache)
    assert edited.cached == 1, "the stage that the image leaves out is in the cache: mode=max"
    assert edited.program.splitlines()[1] == pushed.program.splitlines()[1]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("pool", [MANAGED, EXTERNAL])
def test_prune_and_import_leave_every_step_cached(
    api: Api, pools: str, tmp_path: Path, pool: str, tool: str
) -> None:
    project = new_project(tmp_path, tool, client_of(api, pool, pools, tmp_path))
    cache = cache_flags(api, pool, pools, tool, REPOSITORY=f"team/{tool}/pruned")
    exported = project.build(*cache)
    assert exported.cached == 0
    project.client.ask("prune", "--all")
    without = project.build()
    assert without.cached == 0
    assert without.program != exported.program
    project.client.ask("prune", "--all")
    assert project.build(*cache) == Built(STEPS, exported.program)


@pytest.mark.parametrize("tool", TOOLS)
def test_import_falls_back_to_the_cache_of_main_until_a_branch_has_its_own(
    api: Api, pools: str, tmp_path: Path, tool: str
) -> None:
    project = new_project(tmp_path, tool, client_of(api, MANAGED, pools, tmp_path))
    main, branch = (
        cache_flags(api, MANAGED, pools, tool, REPOSITORY=f"team/{tool}/branched", **variables)
        for variables in ({}, {"BRANCH": "feature/shared#1"})
    )
    trunk = project.build(*main)
    project.client.ask("prune", "--all")
    project.edit()
    first = project.build(*branch)
    assert (trunk.cached, first.cached) == (0, 1)
    assert first.program.splitlines()[1] == trunk.program.splitlines()[1]
    project.client.ask("prune", "--all")
    assert project.build(*branch) == Built(STEPS, first.program)


def test_import_has_no_flags_for_a_project_without_a_name(api: Api, pools: str) -> None:
    """Two projects in one place would take each other's cache away."""
    with pytest.raises(AssertionError, match="REPOSITORY"):
        cache_flags(api, MANAGED, pools, "buildctl")


def test_scaled_builders_share_the_cache(api: Api, pools: str, tmp_path: Path) -> None:
    client = client_of(api, MANAGED, pools, tmp_path)
    client.ask("prune", "--all")
    flags = {
        tool: cache_flags(api, MANAGED, pools, tool, REPOSITORY="team/scaled") for tool in TOOLS
    }
    begun = time.monotonic()
    assert cached_steps(client.build(PARALLEL, *flags["buildctl"])) == 0
    print(f"built and exported: {time.monotonic() - begun:.1f} s")
    with scaled(api, MANAGED, pools, 1 + len(TOOLS)):
        print(f"with two more builders: {time.monotonic() - begun:.1f} s")
        for number, (tool, build) in enumerate(TOOLS.items(), start=1):
            pod = serving(api, f"{MANAGED}-builder-{number}", pools)
            assert pod is not None
            new = client.at(address_of(pod))
            assert new.ask("du").split()[-2:] == ["Total:", "0B"], "nobody has built there"
            begun = time.monotonic()
            assert cached_steps(build(new, PARALLEL, *flags[tool])) == SLEEPS
            print(f"{tool} on an empty builder: {time.monotonic() - begun:.1f} s")


def test_self_signed_registry_stands_in_for_docker_hub(
    hub: Registry, client: Client, tmp_path: Path
) -> None:
    tool = context(tmp_path / "push", f"FROM {BASE}\nRUN echo from the hub > /origin\n")
    image = f"{hub.host}/docker-hub/library/company-tool:1"
    client.build(tool, f"--output=type=image,name={image},push=true")
    app = context(tmp_path / "pull", "FROM company-tool:1\nRUN cp /origin /copy\n")
    client.build(app, f"--output=type=local,dest={tmp_path / 'out'}")
    assert (tmp_path / "out" / "copy").read_text() == "from the hub\n"


def test_cache_mount_is_found_again_by_the_next_build(client: Client, tmp_path: Path) -> None:
    step = "RUN --mount=type=cache,target=/cache echo $ROUND >> /cache/log; cp /cache/log /log"
    folder = context(tmp_path / "context", f"FROM {BASE}\nARG ROUND\n{step}\n")
    for number, expected in (1, "1\n"), (2, "1\n2\n"):
        # Not --no-cache: that would empty the mount, too.
        client.build(
            *(folder, "--opt", f"build-arg:ROUND={number}"),
            *("--output", f"type=local,dest={tmp_path / 'out'}"),
        )
        assert (tmp_path / "out" / "log").read_text() == expected


def test_secret_is_seen_by_its_step_and_by_nobody_else(client: Client, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very-secret-token")
    text = (
        f"FROM {BASE}\n"
        "RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size\n"
        "RUN ls /run/secrets > /seen 2>&1 || true\n"
    )
    out = tmp_path / "out"
    progress = client.build(
        context(tmp_path / "context", text),
        *("--secret", f"id=token,src={tmp_path / 'token'}"),
        *("--output", f"type=local,dest={out}"),
    )
    assert (out / "size").read_text().strip() == str(len("very-secret-token"))
    assert "token" not in (out / "seen").read_text()
    assert "very-secret-token" not in progress


def test_ssh_agent_is_forwarded_into_the_step_that_asks(client: Client, tmp_path: Path) -> None:
    text = f"FROM {BASE}\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo forwarded > /agent\n"
    out = tmp_path / "out"
    with ssh_agent(tmp_path / "agent.sock") as socket:
        client.build(
            context(tmp_path / "context", text),
            *("--ssh", f"default={socket}", "--output", f"type=local,dest={out}"),
        )
    assert (out / "agent").read_text() == "forwarded\n"
