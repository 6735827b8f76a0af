"""429 for one account, by the API server's own protection from overload."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluster import OPERATOR_NAMESPACE, Api

HEAD = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": {"name": "one-seat"}}


@contextmanager
def storm_of_429(api: Api, account: str, kubeconfig: Path, *, slow: str) -> Iterator[None]:
    """One seat for an account of the operator's namespace, always taken.

    ``slow`` is the plural of a core kind that the account may list in all namespaces.
    """
    api.apply(_one_seat(), _for_the(account))
    try:
        with _a_busy_namesake(kubeconfig, slow):
            yield
    finally:
        api.must("delete", "flowschema,prioritylevelconfiguration", "one-seat")


@contextmanager
def _a_busy_namesake(kubeconfig: Path, slow: str) -> Iterator[None]:
    """Somebody with the account's name, whose slow requests take all the seats it has."""
    settings = yaml.safe_load(kubeconfig.read_text())
    server = settings["clusters"][0]["cluster"]["server"]
    # A version that will never come: the API server waits for it for some three seconds.
    url = f"{server}/api/v1/{slow}?limit=1&resourceVersion=999999999999"
    token = {"Authorization": f"Bearer {settings['users'][0]['user']['token']}"}
    trusting = ssl._create_unverified_context()
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(url, headers=token), context=trusting)
            time.sleep(0.01)

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _one_seat() -> dict[str, object]:
    limited = {
        "nominalConcurrencyShares": 0,  # one request is served nevertheless
        "lendablePercent": 0,
        "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    }
    spec = {"type": "Limited", "limited": limited}
    return {**HEAD, "kind": "PriorityLevelConfiguration", "spec": spec}


def _for_the(account: str) -> dict[str, object]:
    subject = {"name": account, "namespace": OPERATOR_NAMESPACE}
    everything = {
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": subject}],
        "resourceRules": [
            {
                "verbs": ["*"],
                "apiGroups": ["*"],
                "resources": ["*"],
                "namespaces": ["*"],
                "clusterScope": True,
            }
        ],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    spec = {
        "priorityLevelConfiguration": {"name": "one-seat"},
        "matchingPrecedence": 10,
        "rules": [everything],
    }
    return {**HEAD, "kind": "FlowSchema", "spec": spec}
