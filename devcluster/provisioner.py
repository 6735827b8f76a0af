"""Makes and removes volumes: a folder of this machine for each claim of the default storage class.

``python -m devcluster.provisioner FOLDER PKI`` inside the box. Knows the API by plain HTTP:
it lists, decides, writes, and waits for the next change; a repeated decision does no harm. Never
removes anything outside of its folder.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from devcluster.addresses import ADDRESSES, Family
from devcluster.config import PROVISIONER, STORAGE_CLASS

CLAIMS: Final = "/api/v1/persistentvolumeclaims"
VOLUMES: Final = "/api/v1/persistentvolumes"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"

Json = dict[str, Any]


def wants_volume(claim: Json) -> bool:
    """Whether a claim waits for a volume of ours."""
    spec, status = claim["spec"], claim.get("status", {})
    return bool(
        spec.get("storageClassName") == STORAGE_CLASS
        and not spec.get("volumeName")
        and status.get("phase", "Pending") == "Pending"
        and "deletionTimestamp" not in claim["metadata"]
    )


def is_released(volume: Json) -> bool:
    """Whether a volume of ours has lost its claim and is to be removed."""
    return bool(
        volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
        and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        and volume.get("status", {}).get("phase") == "Released"
    )


def volume_name(claim: Json) -> str:
    """One name per claim, so that a repeated attempt makes no second volume."""
    return f"pvc-{claim['metadata']['uid']}"


def volume_for(claim: Json, folder: Path) -> Json:
    """The volume of a claim."""
    metadata, spec = claim["metadata"], claim["spec"]
    name = volume_name(claim)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": str(folder / name), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "volumeMode": "Filesystem",
        },
    }


class Provisioner:
    """Does what the functions above decide."""

    def __init__(self, folder: Path, pki: Path) -> None:
        self._folder = folder
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "provisioner.crt", pki / "provisioner.key")
        self._changed = threading.Event()

    def run(self) -> None:
        """For ever."""
        for path in (CLAIMS, VOLUMES):
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()
        while True:
            self._changed.clear()
            try:
                self._pass()
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"will try again: {error}", flush=True)
                time.sleep(1)
                continue
            self._changed.wait(30)

    def _pass(self) -> None:
        for claim in filter(wants_volume, self._request("GET", CLAIMS)["items"]):
            folder = self._folder / volume_name(claim)
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)  # claims are used by any user, as with other such provisioners
            self._request("POST", VOLUMES, volume_for(claim, self._folder))
        for volume in filter(is_released, self._request("GET", VOLUMES)["items"]):
            name = volume["metadata"]["name"]
            shutil.rmtree(self._folder / name, ignore_errors=True)
            self._request("DELETE", f"{VOLUMES}/{name}")

    def _watch(self, path: str) -> None:
        while True:
            try:
                connection = self._connect(timeout=120)
                connection.request("GET", f"{path}?watch=1&timeoutSeconds=60")
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    raise http.client.HTTPException(response.reason)
                while response.readline():
                    self._changed.set()
                connection.close()
            except (OSError, http.client.HTTPException):
                time.sleep(1)

    def _request(self, method: str, path: str, body: Json | None = None) -> Json:
        connection = self._connect(timeout=10)
        try:
            content = json.dumps(body) if body else None
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer: Json = json.loads(response.read())
        finally:
            connection.close()
        # What is there already, or gone already, is what we wanted.
        if response.status >= http.HTTPStatus.BAD_REQUEST and response.status not in (
            http.HTTPStatus.CONFLICT,
            http.HTTPStatus.NOT_FOUND,
        ):
            raise ValueError(f"{method} {path}: {answer.get('message', response.status)}")
        return answer

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        host = urlsplit(ADDRESSES[Family.IPV4].api_server).netloc
        return http.client.HTTPSConnection(host, timeout=timeout, context=self._context)


if __name__ == "__main__":
    Provisioner(Path(sys.argv[1]), Path(sys.argv[2])).run()
