# SPDX-License-Identifier: Apache-2.0
"""The client of the original Clipper, unmodified, with a container manager that starts models which
register with us, as the original's started those that dialled it."""

import json
import os
import subprocess
import sys
import time

import pytest
import requests
from clipper_admin import ClipperConnection, ClipperException, UnconnectedException
from clipper_admin.container_manager import ContainerManager
from conftest import CLIPPER, MODEL


class Processes(ContainerManager):
    """Runs the containers of models as processes."""

    cluster_name = cluster_identifier = "test"

    def __init__(self, system):
        self.system, self.running = system, {}

    def start_clipper(self, *arguments):
        pass  # It runs already.

    def connect(self):
        pass

    def deploy_model(self, name, version, input_type, image, num_replicas=1):
        self.set_num_replicas(name, version, input_type, image, num_replicas)

    def get_num_replicas(self, name, version):
        return len(self.running.get((name, version), []))

    def set_num_replicas(self, name, version, input_type, image, num_replicas):
        replicas = self.running.setdefault((name, version), [])
        while len(replicas) > num_replicas:
            stop(replicas.pop())
        while len(replicas) < num_replicas:
            environment = os.environ | {
                "KIND": image,
                "CLIPPER_MODEL_NAME": name,
                "CLIPPER_MODEL_VERSION": version,
                "CLIPPER_CONTAINER_ADDRESS": "127.0.0.1:0",
                "CLIPPER_REGISTER_ADDRESS": self.system.admin,
            }
            replicas.append(subprocess.Popen([sys.executable, MODEL], env=environment))

    def get_logs(self, logging_dir):
        return []

    def stop_models(self, models):
        for name, versions in models.items():
            for version in versions:
                for process in self.running.pop((name, version), []):
                    stop(process)

    def stop_all_model_containers(self):
        for processes in self.running.values():
            for process in processes:
                stop(process)
        self.running.clear()

    def stop_all(self, graceful=True):
        self.stop_all_model_containers()

    def get_admin_addr(self):
        return self.system.legacy_admin

    def get_query_addr(self):
        return self.system.legacy_query

    def get_metric_addr(self):
        return self.system.legacy_query


def stop(process):
    process.terminate()
    process.wait()


@pytest.fixture
def connection(system):
    manager = Processes(system)
    connection = ClipperConnection(manager)
    connection.start_clipper()
    yield connection
    for app in connection.get_all_apps():
        if app.startswith("legacy-"):
            connection.unregister_application(app)
    connection.stop_models([name for name, _ in manager.running])
    connection.stop_all()


def predict(connection, app, **body):
    answer = requests.post(f"http://{connection.get_query_addr()}/{app}/predict", headers={"Content-type": "application/json"}, data=json.dumps(body))
    assert answer.headers["Content-Type"] == "application/json"
    return answer


def answered(connection, app, **body):
    """The answer as soon as it is not the default: a container takes a moment to register."""
    for _ in range(600):
        answer = predict(connection, app, **body)
        assert answer.status_code == 200, answer.text
        if not answer.json()["default"]:
            return answer.json()
        time.sleep(0.05)
    raise AssertionError(answer.text)


def test_life_of_an_application(connection):
    name = "legacy-app"
    connection.register_application(name=name, input_type="strings", default_output="-1.0", slo_micros=5_000_000)
    with pytest.raises(ClipperException, match="application 'legacy-app' already exists"):
        connection.register_application(name=name, input_type="strings", default_output="-1.0", slo_micros=5_000_000)
    info = {"name": name, "input_type": "strings", "default_output": "-1.0", "latency_slo_micros": 5_000_000, "linked_models": []}
    assert connection.get_app_info(name) == info
    assert connection.get_app_info("legacy-none") is None
    assert name in connection.get_all_apps()
    assert info in connection.get_all_apps(verbose=True)
    assert connection.get_linked_models(name) == []

    answer = predict(connection, name, input="abc").json()
    assert list(answer) == ["query_id", "output", "default", "default_explanation"]
    assert answer["output"] == -1.0 and answer["default"]
    assert answer["default_explanation"] == "No connected models found for query"

    connection.deploy_model(name="legacy-lengths", version=1, input_type="strings", image="lengths", labels=["a", "b"])
    connection.link_model_to_app(app_name=name, model_name="legacy-lengths")
    assert connection.get_linked_models(name) == ["legacy-lengths"]
    assert answered(connection, name, input="abc")["output"] == 3

    batch = predict(connection, name, input_batch=["a", "bb"]).json()
    assert [item["output"] for item in batch["batch_predictions"]] == [1, 2]
    first, second = (item["query_id"] for item in batch["batch_predictions"])
    assert second == first + 1
    assert predict(connection, name, input_batch=["bb"]).json()["output"] == 2
    assert predict(connection, name, input_batch=[]).json() == {"batch_predictions": []}

    refused = predict(connection, name, input=[1.0])
    assert refused.status_code == 400 and list(refused.json()) == ["error", "cause"]
    assert refused.json()["error"] == "Json error"

    connection.unlink_model_from_app(app_name=name, model_name="legacy-lengths")
    assert predict(connection, name, input="abc").json()["default"]
    connection.delete_application(name)
    assert connection.get_app_info(name) is None

    # Registered again it is another one, which the original's query frontend did not see.
    connection.register_application(name=name, input_type="doubles", default_output="none", slo_micros=100_000)
    assert predict(connection, name, input=[1.0]).json()["output"] == "none"


def test_life_of_a_model(connection):
    name, app = "legacy-model", "legacy-versions"
    connection.register_application(name=app, input_type="strings", default_output="0", slo_micros=5_000_000)
    connection.deploy_model(name=name, version="1", input_type="strings", image="lengths", num_replicas=1, batch_size=2)
    with pytest.raises(ClipperException, match="already exists"):
        connection.register_model(name, "1", "strings")
    connection.link_model_to_app(app, name)
    assert answered(connection, app, input="abc")["output"] == 3

    info = {
        "model_name": name,
        "model_version": "1",
        "input_type": "strings",
        "labels": [""],
        "container_name": "lengths",
        "model_data_path": "DEPRECATED",
        "is_current_version": True,
    }
    assert connection.get_model_info(name, "1") == info
    assert connection.get_model_info(name, "2") is None
    assert f"{name}:1" in connection.get_all_models()
    assert info in connection.get_all_models(verbose=True)
    assert connection.get_current_model_version(name) == "1"
    assert connection.get_num_replicas(name) == 1

    [replica] = [r for r in connection.get_all_model_replicas(verbose=True) if r["model_name"] == name]
    assert list(replica) == ["model_id", "model_name", "model_version", "model_replica_id", "input_type"]
    assert connection.get_model_replica_info(name, "1", replica["model_replica_id"]) == replica
    assert connection.get_model_replica_info(name, "1", replica["model_replica_id"] ^ 1) is None
    assert f"{name}:1:{replica['model_replica_id']}" in connection.get_all_model_replicas()

    connection.register_model(name, "2", "strings", labels=["x", "y"])
    assert connection.get_model_info(name, "2")["labels"] == ["x", "y"]
    assert connection.get_model_info(name, "2")["container_name"] == "NO_CONTAINER"
    assert connection.get_current_model_version(name) == "2"
    assert predict(connection, app, input="abc").json()["default"], "the current version has no container"
    assert predict(connection, app, input="abc", version="1").json()["output"] == 3
    refused = predict(connection, app, input="abc", version="9")
    assert refused.status_code == 400
    assert refused.text == f'{{"error":"Query processing error","cause":"Requested version: 9 does not exist for model: {name}"}}'
    connection.set_model_version(name, "1", num_replicas=2)
    assert answered(connection, app, input="abc")["output"] == 3
    with pytest.raises(ClipperException, match="Cannot set non-existent version '9'"):
        connection.set_model_version(name, "9")

    connection.stop_inactive_model_versions([name])
    assert [m for m in connection.get_all_models() if m.startswith(name)] == [f"{name}:1"]
    connection.stop_versioned_models({name: ["1"]})
    assert connection.get_model_info(name, "1") is None
    assert predict(connection, app, input="abc").json()["default_explanation"] == "No connected models found for query"


def test_numbers(connection):
    """A model that gives numbers, whatever the default output is."""
    connection.register_application("legacy-numbers", "floats", "None", 5_000_000)
    connection.deploy_model("legacy-total", 1, "floats", "total")
    for _ in range(600):  # What it gives is known when its container has registered.
        if any(r.startswith("legacy-total") for r in connection.get_all_model_replicas()):
            break
        time.sleep(0.05)
    connection.link_model_to_app("legacy-numbers", "legacy-total")
    assert answered(connection, "legacy-numbers", input=[1.5, 2.0, 3.0])["output"] == 6.5
    assert connection.get_app_info("legacy-numbers")["default_output"] == "None"
    failed = predict(connection, "legacy-numbers", input=[-1.5, -2.0, -3.0]).json()
    assert failed["output"] == "None" and failed["default"]
    assert failed["default_explanation"] == "Failed to retrieve a prediction response within the specified latency SLO"
    with pytest.raises(ClipperException, match="incompatible input_type 'floats'"):
        connection.register_application("legacy-doubles", "doubles", "None", 5_000_000)
        connection.link_model_to_app("legacy-doubles", "legacy-total")


def test_metrics(connection):
    connection.register_application("legacy-metrics", "strings", "0", 5_000_000)
    predict(connection, "legacy-metrics", input="abc")
    metrics = connection.inspect_instance()
    assert list(metrics) == ["counters", "ratio_counters", "meters", "histograms"]
    counters = {name: value for entry in metrics["counters"] for name, value in entry.items()}
    assert counters["app:legacy-metrics:num_predictions"] == {"count": "1"}
    histograms = {name: value for entry in metrics["histograms"] for name, value in entry.items()}
    assert list(histograms["app:legacy-metrics:prediction_latency"]) == ["unit", "size", "min", "max", "mean", "std_dev", "p50", "p95", "p99"]


def test_unconnected(system):
    with pytest.raises(UnconnectedException):
        ClipperConnection(Processes(system)).get_all_apps()


def test_feedback(connection):
    connection.register_application("legacy-feedback", "doubles", "0", 100_000)
    for uid, received in (0, 1), (7, 0):
        answer = requests.post(f"http://{connection.get_query_addr()}/legacy-feedback/update", json={"uid": uid, "input": [1.0], "label": 1.0})
        assert (answer.status_code, answer.text) == (200, f"Feedback received? {received}")


def test_the_model_of_those_without_is_hidden(connection):
    connection.register_application("legacy-hidden", "doubles", "0", 100_000)
    assert not any(m.startswith("legacy.") for m in connection.get_all_models())
    listed = subprocess.run([CLIPPER, "model", "list", "--admin-address", connection.cm.system.admin], capture_output=True, text=True, check=True)
    assert "legacy.unlinked" in listed.stdout
