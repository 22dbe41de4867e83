"""The part of the Kubernetes API that Airflow's pod operator and its trigger use, over real HTTP and WebSockets.

A stand-in, since no API server is to be had here; paths, answers and channels are as Kubernetes' API reference has
them. A test says what the kubelet and the scheduler would: `state` of a pod's container, and its phase.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Plain = dict[str, Any]
WEBSOCKET_ID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
STDOUT = b"\x01"  # the channel's number comes before what is sent on it
CLOSE = b"\x88\x00"
SIDECAR = "airflow-xcom-sidecar"
RUNNING: Plain = {"running": {"startedAt": "2026-03-01T00:00:00Z"}}
WAITING: Plain = {"waiting": {"reason": "ContainerCreating"}}


def terminated(exit_code: int, message: str = "") -> Plain:
    return {"terminated": {"exitCode": exit_code, "reason": "Completed", "message": message}}


class Cluster:
    """Pods by name, and each request: its verb, resource and name, as a Role would be asked for them."""

    def __init__(self) -> None:
        self.pods: dict[str, Plain] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.followed: list[str] = []
        self.result = ""
        """What the command left for the sidecar."""
        self.refused: set[str] = set()
        """Verbs that the API server refuses."""

    def names(self, verb: str) -> list[str]:
        return [name for done, resource, name in self.calls if (done, resource) == (verb, "pods")]

    def schedule(self, name: str) -> None:
        conditions = [{"type": "PodScheduled", "status": "True"}]
        self.pods[name]["status"]["conditions"] = conditions

    def set(self, name: str, state: Plain, phase: str = "Running", sidecar: Plain = RUNNING) -> None:
        """The base container's state, which the sidecar does not share."""
        self.schedule(name)
        self.pods[name]["status"] |= {
            "phase": phase,
            "containerStatuses": [_status("base", state), _status(SIDECAR, sidecar)],
        }

    def created(self) -> str:
        """The name of the newest pod."""
        return self.names("create")[-1]


def _status(name: str, state: Plain) -> Plain:
    return {"name": name, "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}


@contextmanager
def kubernetes() -> Iterator[tuple[Cluster, Plain]]:
    """A cluster without nodes, and the extras of Airflow's connection to it."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield cluster, {"kube_config": json.dumps(_kube_config(server.server_port))}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _kube_config(port: int) -> Plain:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.0"  # each connection ends with its answer: Airflow's clients leave theirs open

    def do_GET(self) -> None:
        resource, name, verb = self._asked("get", "list")
        if resource == "events":
            return self._answer({"kind": "EventList", "metadata": {"resourceVersion": "1"}, "items": []})
        if verb == "list":
            found = [pod for pod in self.cluster.pods.values() if _matches(pod, self._option("labelSelector"))]
            return self._answer({"kind": "PodList", "metadata": {}, "items": found})
        if (pod := self.cluster.pods.get(name)) is None:
            return self._fail(404, "NotFound", f'pods "{name}" not found')
        return {"pods": self._answer, "pods/log": self._log, "pods/exec": self._exec}[resource](pod)

    def do_POST(self) -> None:
        self._asked("create", "create")
        pod = self._body()
        self.cluster.calls[-1] = ("create", "pods", pod["metadata"]["name"])
        pod["status"] = {"phase": "Pending"}
        self.cluster.pods[pod["metadata"]["name"]] = pod
        self._answer(pod)

    def do_PATCH(self) -> None:
        _, name, _ = self._asked("patch", "patch")
        pod = self.cluster.pods[name]
        pod["metadata"]["labels"] |= self._body()["metadata"]["labels"]
        self._answer(pod)

    def do_DELETE(self) -> None:
        _, name, verb = self._asked("delete", "delete")
        self._body()
        if verb in self.cluster.refused:
            return self._fail(403, "Forbidden", f'pods "{name}" is forbidden')
        if self.cluster.pods.pop(name, None) is None:
            return self._fail(404, "NotFound", f'pods "{name}" not found')
        return self._answer({"kind": "Status", "status": "Success"})

    def _asked(self, verb: str, without_name: str) -> tuple[str, str, str]:
        """Resource, name and verb of this request: /api/v1/namespaces/{namespace}/{resource}[/{name}[/{part}]]."""
        _, _, _, _, kind, *rest = urlsplit(self.path).path.strip("/").split("/")
        name, part = (*rest, "", "")[:2]
        resource = f"{kind}/{part}" if part else kind
        verb = verb if name else without_name
        self.cluster.calls.append((verb, resource, name))
        return resource, name, verb

    def _option(self, name: str) -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def _log(self, pod: Plain) -> None:
        state = _base(pod)
        if not {"running", "terminated"} & set(state):
            return self._fail(400, "BadRequest", 'container "base" is waiting to start')
        if self._option("follow").lower() == "true" and "running" in state:
            self.cluster.followed.append(pod["metadata"]["name"])  # a real one would not answer before the end
        return self._send(200, b"the last line of its log\n", "text/plain")

    def _exec(self, pod: Plain) -> None:
        """The result on stdout for `cat`; a shell without arguments gets the signal that ends the sidecar."""
        key = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + WEBSOCKET_ID).digest()
        self.protocol_version = "HTTP/1.1"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        if len(parse_qs(urlsplit(self.path).query)["command"]) > 1:
            said = STDOUT + self.cluster.result.encode()
            self.wfile.write(b"\x82\x7e" + len(said).to_bytes(2, "big") + said)
        else:
            self.rfile.read(2)  # the head of the frame with the command
            exit_code = _base(pod)["terminated"]["exitCode"]
            name = pod["metadata"]["name"]
            self.cluster.set(name, _base(pod), "Failed" if exit_code else "Succeeded", terminated(0))
        self.wfile.write(CLOSE)
        self.close_connection = True

    def _body(self) -> Plain:
        body: Plain = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        return body

    def _answer(self, body: Plain) -> None:
        self._send(200, json.dumps(body).encode(), "application/json")

    def _fail(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}
        self._send(code, json.dumps(status).encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # a trigger that has seen enough hangs up
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _base(pod: Plain) -> Plain:
    statuses = pod["status"].get("containerStatuses", [])
    return next((one["state"] for one in statuses if one["name"] == "base"), {})


def _matches(pod: Plain, selector: str) -> bool:
    labels = pod["metadata"]["labels"]
    for term in selector.split(","):
        if "!=" in term:
            key, _, value = term.partition("!=")
            fits = labels.get(key) != value
        elif term.startswith("!"):
            fits = term[1:] not in labels
        else:
            key, _, value = term.partition("=")
            fits = labels.get(key) == value
        if not fits:
            return False
    return True
