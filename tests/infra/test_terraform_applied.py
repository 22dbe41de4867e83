"""The Terraform of infra/terraform, applied for real to AWS as moto plays it, and the loop run on what it made.

Moto enforces no policy as AWS would; `iam_policy` judges the requests that our code makes by the policies that stand.
Lifecycle rules are only planned here: Terraform waits a minute for AWS to make up its mind about one. They are applied,
and everything is destroyed, in test_terraform_whole.py.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.errors import Conflict
from ratchet.lease import acquire
from ratchet.release.gate.duel_log import DuelLog, DuelRound
from ratchet.release.gate.event_tail import EventTail
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.ledger import Ledger, LedgerEntry, read_ledger
from ratchet.release.reconciler.targets import LEASE
from ratchet.step import run_step
from ratchet.store import S3Store, open_store
from ratchet_pipelines.graph import STEPS
from ratchet_pipelines.loop import run_loop
from support import vote_factory
from support.iam_policy import Request, Statement, is_allowed, listed
from support.s3_server import s3_server
from support.terraform_code import CODE, ISSUER, Account, Terraform, lists_of, resources, variables

pytestmark = pytest.mark.timeout(300)
KEY = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("code") / "terraform")


@pytest.fixture(scope="module")
def aws(terraform: Terraform) -> Iterator[Account]:
    """The code applied but for the lifecycle, with GPU nodes; it is gone with the server."""
    with s3_server() as endpoint:
        account = Account()
        gpu_nodes = {"node_role_arn": account.make_cluster(), "cluster_name": "main", "subnet_ids": ["subnet-1"]}
        accounts = {"pipelines": ["kubeflow/pipeline-runner"]}
        terraform.point_at(
            endpoint,
            variables(lake_prefix="team/lake", kms_key_arn=KEY, gpu_nodes=gpu_nodes, service_accounts=accounts),
        )
        targets = [f"-target={address}" for address in sorted(resources()) if "lifecycle_configuration" not in address]
        terraform.must("apply", "-input=false", "-auto-approve", *targets)
        yield account
        account.close()


@pytest.fixture(scope="module")
def planned(terraform: Terraform, aws: Account) -> dict[str, dict[str, Any]]:
    """What the next apply would change, by address, with the values it would set."""
    changes = {one["address"]: one["change"] for one in terraform.plan()["resource_changes"]}
    return {address: change["after"] for address, change in changes.items() if change["actions"] != ["no-op"]}


def test_second_apply_changes_nothing_of_the_first(planned: dict[str, dict[str, Any]]) -> None:
    # moto gives a node group SSH access that nobody asked for
    groups = {f'aws_eks_node_group.gpu["{name}"]' for name in ("training", "serving")}
    lifecycle = {f"aws_s3_bucket_lifecycle_configuration.{bucket}" for bucket in ("lake", "artifacts")}
    assert lifecycle <= set(planned) <= lifecycle | groups


@pytest.mark.parametrize("bucket", ["test-lake", "test-artifacts"])
def test_bucket_is_versioned_encrypted_and_private(aws: Account, bucket: str) -> None:
    s3 = aws("s3")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    assert rule["BucketKeyEnabled"]
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    assert _bucket_statement(aws, bucket, "OnlyOverTls")["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_nothing_in_the_lake_expires_but_old_versions_and_trainings_given_up(
    planned: dict[str, dict[str, Any]],
) -> None:
    rules = planned["aws_s3_bucket_lifecycle_configuration.lake"]["rule"]
    ends = {rule["filter"][0]["prefix"]: rule["expiration"][0]["days"] for rule in rules if rule["expiration"]}
    assert ends == {"team/lake/": 0, "team/lake/work/": 30}
    forgets = {rule["filter"][0]["prefix"].split("/")[2] for rule in rules if rule["noncurrent_version_expiration"]}
    kinds = lists_of(CODE / "lake.tf")
    folders = {*kinds["create_only"], *kinds["by_digest"], *kinds["mutable"]}
    assert folders - forgets == {"ledger", "manifests"}
    assert forgets < folders


@pytest.mark.parametrize("bucket", ["lake", "artifacts"])
def test_unfinished_uploads_end(planned: dict[str, dict[str, Any]], bucket: str) -> None:
    rules = planned[f"aws_s3_bucket_lifecycle_configuration.{bucket}"]["rule"]
    (ends,) = (rule for rule in rules if rule["abort_incomplete_multipart_upload"])
    assert ends["abort_incomplete_multipart_upload"] == [{"days_after_initiation": 7}]
    assert (ends["status"], ends["filter"][0]["prefix"] or "") == ("Enabled", "")


def test_only_events_that_s3_would_move_are_moved(planned: dict[str, dict[str, Any]]) -> None:
    """Below 128 KiB S3 moves nothing, and bills as much for an object there."""
    rules = planned["aws_s3_bucket_lifecycle_configuration.lake"]["rule"]
    (moves,) = (rule for rule in rules if rule["transition"])
    (wanted,) = moves["filter"][0]["and"]
    assert (wanted["prefix"], wanted["object_size_greater_than"]) == ("team/lake/events/", 128 * 1024 - 1)
    assert {move["storage_class"]: move["days"] for move in moves["transition"]} == {
        "STANDARD_IA": 90,
        "GLACIER_IR": 270,
    }


def test_bucket_policy_forbids_overwriting_the_record_and_deleting_it(aws: Account) -> None:
    create_only, permanent = (_bucket_statement(aws, "test-lake", sid) for sid in ("CreateOnly", "Permanent"))
    assert create_only["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert "arn:aws:s3:::test-lake/team/lake/ledger/*" in create_only["Resource"]
    assert not [resource for resource in create_only["Resource"] if "/leases/" in resource or "/tables/" in resource]
    assert {resource.split("/")[-2] for resource in permanent["Resource"]} == {"ledger", "manifests"}
    assert set(permanent["Action"]) == {"s3:DeleteObject", "s3:DeleteObjectVersion"}


def _bucket_statement(aws: Account, bucket: str, sid: str) -> dict[str, Any]:
    policy = json.loads(aws("s3").get_bucket_policy(Bucket=bucket)["Policy"])
    found: dict[str, Any] = next(one for one in policy["Statement"] if one["Sid"] == sid)
    assert (found["Effect"], found["Principal"]) in (("Deny", "*"), ("Deny", {"AWS": "*"}))
    return found


def test_images_are_scanned_and_tags_never_move(aws: Account) -> None:
    repositories = aws("ecr").describe_repositories()["repositories"]
    names = {one["repositoryName"] for one in repositories}
    assert names >= {"test/ratchet-components", "test/ratchet-components-cuda"}
    assert all(name.startswith("test/") for name in names), "a second environment in the account has these names, too"
    assert {one["imageTagMutability"] for one in repositories} == {"IMMUTABLE"}
    assert all(one["imageScanningConfiguration"]["scanOnPush"] for one in repositories)


@pytest.mark.parametrize(
    ("name", "most", "more"), [("training", 1, []), ("serving", 2, [{"key": "ratchet.dev/nodes", "value": "serving"}])]
)
def test_gpu_nodes_start_at_none_and_keep_others_away(
    aws: Account, name: str, most: int, more: list[dict[str, str]]
) -> None:
    group = aws("eks").describe_nodegroup(clusterName="main", nodegroupName=f"test-{name}")["nodegroup"]
    assert group["scalingConfig"] == {"minSize": 0, "desiredSize": 0, "maxSize": most}
    assert group["labels"]["ratchet.dev/nodes"] == name
    taints = sorted(group["taints"], key=lambda taint: taint["key"])
    gpu = {"key": "nvidia.com/gpu", "value": "present"}
    assert taints == [{**taint, "effect": "NO_SCHEDULE"} for taint in (gpu, *more)]


def _role(aws: Account, name: str) -> list[Statement]:
    """What a role's own policy says."""
    policy = aws("iam").get_role_policy(RoleName=f"test-{name}", PolicyName="lake")["PolicyDocument"]
    statements: list[Statement] = policy["Statement"]
    return statements


def _object(action: str, key: str) -> Request:
    return Request(f"s3:{action}", f"arn:aws:s3:::test-lake/team/lake/{key}", {"s3:ObjectCreationOperation": "true"})


def _artifact(action: str, key: str) -> Request:
    return Request(f"s3:{action}", f"arn:aws:s3:::test-artifacts/{key}", {"s3:ObjectCreationOperation": "true"})


def _listing(prefix: str) -> Request:
    return Request("s3:ListBucket", "arn:aws:s3:::test-lake", {"s3:prefix": f"team/lake/{prefix}"})


LEDGER = "ledger/00000001.json"
EVENTS = "events/feedback/dt=2026-01-01/a.jsonl"
ADAPTER = "adapters/0a/adapter_model.safetensors"
KEYS = (LEDGER, EVENTS, ADAPTER)


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [
        ("steps", {LEDGER, EVENTS, ADAPTER}, {ADAPTER}),
        ("release", {LEDGER, ADAPTER}, {LEDGER}),
        ("gate", {LEDGER, EVENTS}, set()),
        ("router", set(), {EVENTS}),
        ("model-pool", {LEDGER, ADAPTER}, set()),
        ("mlflow", set(), set()),
        ("argo-server", set(), set()),
        ("pipelines", {LEDGER, EVENTS, ADAPTER}, {LEDGER, ADAPTER}),
    ],
)
def test_role_may_do_no_more_than_its_work(aws: Account, role: str, reads: set[str], writes: set[str]) -> None:
    rules = _role(aws, role)
    assert {key for key in KEYS if is_allowed(_object("GetObject", key), rules)} == reads
    assert {key for key in KEYS if is_allowed(_object("PutObject", key), rules)} == writes
    assert {key for key in KEYS if is_allowed(_listing(key.partition("/")[0] + "/"), rules)} == reads
    assert not [key for key in KEYS if is_allowed(_object("DeleteObject", key), rules)]
    assert not [one for one in rules if "s3:*" in listed(one["Action"]) or "*" in listed(one["Resource"])]


@pytest.mark.parametrize("role", ["steps", "pipelines"])
def test_who_reads_everything_is_told_that_an_object_is_missing(aws: Account, role: str) -> None:
    """S3 asks for leave to list, without a prefix, before it says 404; deltalake reads `_last_checkpoint` first."""
    assert is_allowed(Request("s3:ListBucket", "arn:aws:s3:::test-lake", {}), _role(aws, role))
    assert not is_allowed(Request("s3:ListBucket", "arn:aws:s3:::test-artifacts", {}), _role(aws, role))


def test_argos_server_shows_results_and_changes_none(aws: Account) -> None:
    rules = _role(aws, "argo-server")
    mine, other = "ratchet/ratchet-loop-x/report.html", "mlflow/1/model"
    assert is_allowed(_artifact("GetObject", mine), rules)
    assert is_allowed(Request("s3:ListBucket", "arn:aws:s3:::test-artifacts", {"s3:prefix": "ratchet/x/"}), rules)
    assert not is_allowed(_artifact("GetObject", other), rules)
    assert not [action for action in ("PutObject", "DeleteObject") if is_allowed(_artifact(action, mine), rules)]


@pytest.mark.parametrize(
    ("role", "account"),
    [
        ("router", "ratchet:ratchet-router"),
        ("pipelines", "kubeflow:pipeline-runner"),
        ("argo-server", "argo:argo-workflows-server"),
    ],
)
def test_role_is_for_its_service_account_alone(aws: Account, role: str, account: str) -> None:
    (statement,) = aws("iam").get_role(RoleName=f"test-{role}")["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"]["StringEquals"] == {
        f"{ISSUER}:aud": "sts.amazonaws.com",
        f"{ISSUER}:sub": f"system:serviceaccount:{account}",
    }


class Lake:
    """The store that the code made, and what AWS would make of each request to it."""

    def __init__(self, aws: Account, root: str, policy: str) -> None:
        store = open_store(root)
        assert isinstance(store, S3Store)
        self.aws, self.store, self.policy = aws, store, json.loads(policy)["Statement"]

    @contextmanager
    def as_role(self, name: str) -> Iterator[S3Store]:
        """The store, for requests that AWS would let this role make."""
        made: list[Request] = []
        events = self.store.client.meta.events

        def note(params: dict[str, Any], model: Any, **_: Any) -> None:
            made.append(_request(model.name, params))

        events.register("provide-client-params.s3", note)
        yield self.store
        events.unregister("provide-client-params.s3", note)
        rules = [*_role(self.aws, name), *self.policy]
        assert made
        assert not [request for request in made if not is_allowed(request, rules)]


def _request(operation: str, given: dict[str, Any]) -> Request:
    """What an S3 call is to a policy."""
    bucket = f"arn:aws:s3:::{given['Bucket']}"
    if operation.startswith("List"):
        return Request("s3:ListBucket", bucket, {"aws:SecureTransport": "true", "s3:prefix": given["Prefix"]})
    context = {"aws:SecureTransport": "true", "s3:ObjectCreationOperation": "true"}
    if "IfNoneMatch" in given:
        context["s3:if-none-match"] = given["IfNoneMatch"]
    action = "s3:GetObject" if operation == "HeadObject" else f"s3:{operation}"
    return Request(action, f"{bucket}/{given['Key']}", context)


@pytest.fixture
def lake(terraform: Terraform, aws: Account) -> Iterator[Lake]:
    """The bucket with its policy set aside: moto reads no conditions, so to it `only over TLS` forbids everything."""
    root = terraform.must("output", "-raw", "lake")
    assert root == "s3://test-lake/team/lake"
    policy = aws("s3").get_bucket_policy(Bucket="test-lake")["Policy"]
    aws("s3").delete_bucket_policy(Bucket="test-lake")
    lake = Lake(aws, root, policy)
    yield lake
    lake.store.client.close()
    aws("s3").put_bucket_policy(Bucket="test-lake", Policy=policy)


def test_loop_and_release_need_nothing_that_their_roles_lack(lake: Lake, tiny_model: Path, tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "base_model": {"model": str(tiny_model), "dtype": "float32"},
            "registry": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"},
            "train_adapter": {"max_tokens": 96},
            "evaluate_adapter": {"min_pairs": 4, "max_new_tokens": 4, "resamples": 200},
        }
    )
    with lake.as_role("router") as store:
        vote_factory.land_votes(store)
    with lake.as_role("steps") as store:
        done = run_loop(config, store, lambda step, ran: None, STEPS[:-1])
    rules = [*_role(lake.aws, "steps"), *lake.policy]
    tables = list(lake.store.list("tables"))  # deltalake writes these, with a client of its own
    assert tables
    assert all(is_allowed(_object("PutObject", key), rules) for key in tables)
    with lake.as_role("release") as store:
        run_step(STEPS[-1], config, {name: done[name].manifest for name in STEPS[-1].inputs}, store)
        assert acquire(store, LEASE, "one", now=0.0, lease_s=5.0)
        assert acquire(store, LEASE, "one", now=4.0, lease_s=5.0)
        Ledger(store).append(lambda _: LedgerEntry(event="requested", at=0.0, who="test", adapter=AdapterRef()))
    with lake.as_role("gate") as store:
        assert [record.event for record in read_ledger(store)] == ["refused", "requested"]
        TrafficLog(store, 1).observe(vote_factory.START_S, 20)
        EventTail(store, since=vote_factory.START_S).read(vote_factory.START_S)
    with lake.as_role("duels") as store:
        rounds = DuelLog(store, 1)
        rounds.read()
        rounds.append(DuelRound(duels=()))
        assert TrafficLog(store, 1).num_steps == 1
    with lake.as_role("model-pool") as store:
        assert read_ledger(store)
        adapter = done["train_adapter"].manifest.outputs["adapter"].uri
        for number, key in enumerate(store.list(adapter)):
            store.download(key, tmp_path / str(number))
        assert (tmp_path / "0").is_file()


def test_what_was_overwritten_can_be_had_back(lake: Lake) -> None:
    lake.store.create("leases/other.json", b"1")
    lake.store.replace("leases/other.json", b"2", expected=b"1")
    with pytest.raises(Conflict):
        lake.store.replace("leases/other.json", b"3", expected=b"1")
    kept = lake.aws("s3").list_object_versions(Bucket="test-lake", Prefix="team/lake/leases/other.json")["Versions"]
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("request_", "is_fine"),
    [
        (_object("PutObject", "leases/reconciler.json"), True),
        (_object("PutObject", LEDGER), False),
        (_object("DeleteObject", LEDGER), False),
        (Request("s3:GetObject", f"arn:aws:s3:::test-lake/{LEDGER}", {"aws:SecureTransport": "false"}), False),
    ],
)
def test_an_administrator_cannot_overwrite_the_ledger_either(aws: Account, request_: Request, is_fine: bool) -> None:
    policy = json.loads(aws("s3").get_bucket_policy(Bucket="test-lake")["Policy"])["Statement"]
    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    assert is_allowed(request_, [everything, *policy]) is is_fine
