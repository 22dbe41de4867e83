"""The lake: conditional writes, the rights of a role folder by folder, and the clock."""

import email.utils
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratchet.access import ALL, ROLES
from ratchet.store import LocalStore, S3Store
from ratchet_pipelines.doctor.findings import Finding, Site

MAX_SKEW_S = 60.0  # leases and horizons are minutes; S3 itself refuses a request that is 15 minutes off
CLOCK_FIX = "set this machine's clock by NTP (`timedatectl set-ntp true`): leases and votes go by it"


def check_lake(site: Site) -> Iterator[Finding]:
    """Conditional writes hold. On S3 this leaves the object by which every writer finds out."""
    if isinstance(site.store, S3Store) and site.role is not None and not ROLES[site.role].write:
        yield Finding(check="lake", state="unchecked", what=f"{site.role} writes nothing", do="ask with another --role")
    elif isinstance(site.store, S3Store):
        site.store.require_conditions()
        yield Finding(check="lake", state="ok", what=f"{site.store.root} refuses to overwrite (If-None-Match)")
    else:
        folder = Path(site.store.root)
        nearest = next(each for each in (folder, *folder.parents) if each.exists())
        if nearest.is_dir() and os.access(nearest, os.W_OK):
            yield Finding(check="lake", state="ok", what=f"{folder} is writable")
        else:
            do = "change its permissions, or name another with --lake"
            yield Finding(check="lake", state="missing", what=f"{folder} is not a writable folder", do=do)


def check_rights(site: Site) -> Iterator[Finding]:
    """Try each verb of the role in each folder, leaving nothing behind but a delete marker where it may delete.

    A write is tried by beginning a multipart upload and aborting it: S3 asks for the right to put an object first.
    """
    if site.role is None:
        do = f"--role {'|'.join(ROLES)}, with that role's credentials: from a pod of its service account"
        yield Finding(check="rights", state="unchecked", what="no role was named", do=do)
        return
    if not isinstance(site.store, S3Store):
        yield Finding(check="rights", state="unchecked", what="a folder has no roles, only permissions")
        return
    access, lake = ROLES[site.role], _Bucket(site.store)
    folders = sorted({folder for role in ROLES.values() for folder in (*role.read, *role.write)} - {ALL})
    for verb, granted, tried in (
        ("read", access.read, lake.read),
        ("list", access.read, lake.list),
        ("write", access.write, lake.write),
        ("delete", access.delete, lake.delete),
    ):
        wanted = [folder for folder in folders if folder in granted or ALL in granted]
        answers = {folder: tried(folder) for folder in wanted}
        denied = {folder: why for folder, why in answers.items() if why}
        for folder, why in denied.items():
            do = f"let the role {site.role} {verb} in {folder}/: infra/terraform/roles.tf has what each needs"
            what = f"{site.role} may not {verb} in {folder}/ ({why})"
            yield Finding(check=f"rights.{verb}.{folder}", state="missing", what=what, do=do)
        if wanted and not denied:
            what = f"{site.role} may {verb} in {', '.join(granted)}"
            yield Finding(check=f"rights.{verb}", state="ok", what=what)
    for verb, granted, tried in (("write", access.write, lake.write), ("delete", access.delete, lake.delete)):
        if too_much := [folder for folder in folders if folder not in granted and not tried(folder)]:
            what = f"{site.role} may also {verb} in {', '.join(too_much)}"
            do = "take it away: whoever holds this role could change what another one is trusted with"
            yield Finding(check=f"rights.more.{verb}", state="warning", what=what, do=do)


def check_clock(site: Site) -> Iterator[Finding]:
    """This machine's clock against the lake's."""
    if isinstance(site.store, LocalStore):
        yield Finding(check="clock", state="unchecked", what="a folder on this machine has its clock")
        return
    assert isinstance(site.store, S3Store)
    headers = _Bucket(site.store).headers()
    theirs = email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    skew = site.now - theirs
    if abs(skew) > MAX_SKEW_S:
        yield Finding(check="clock", state="missing", what=f"this clock is {skew:+.0f} s off the lake's", do=CLOCK_FIX)
    else:
        yield Finding(check="clock", state="ok", what=f"within {MAX_SKEW_S:.0f} s of the lake's")


class _Bucket:
    """The verbs, each tried on a name that nothing has. An empty answer is a yes; else the server's reason."""

    def __init__(self, store: S3Store) -> None:
        self.client, self.bucket = store.client, store.bucket
        self.prefix = f"{store.prefix}/" if store.prefix else ""

    def _name(self, folder: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}{folder}/.ratchet-doctor-{uuid.uuid4().hex}"}

    def read(self, folder: str) -> str:
        # A name that is missing is told apart from one that is denied only with the right to list.
        return self._tried(self.client.get_object, self._name(folder), absent_is_fine=True)

    def list(self, folder: str) -> str:
        where = {"Bucket": self.bucket, "Prefix": f"{self.prefix}{folder}/", "MaxKeys": 1}
        return self._tried(self.client.list_objects_v2, where)

    def write(self, folder: str) -> str:
        name, begun = self._name(folder), {}

        def begin(**where: str) -> None:
            begun.update(self.client.create_multipart_upload(**where))

        why = self._tried(begin, name)
        return why or self._tried(self.client.abort_multipart_upload, {**name, "UploadId": begun["UploadId"]})

    def delete(self, folder: str) -> str:
        return self._tried(self.client.delete_object, self._name(folder))

    def headers(self) -> dict[str, str]:
        from botocore.exceptions import ClientError

        try:
            answer = self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        except ClientError as error:  # a role that may not list learns the time as well
            answer = error.response
        headers: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        return headers

    @staticmethod
    def _tried(call: Any, where: Mapping[str, Any], *, absent_is_fine: bool = False) -> str:
        from botocore.exceptions import ClientError

        try:
            call(**where)
        except ClientError as error:
            code = str(error.response["Error"].get("Code", "no code"))
            return "" if absent_is_fine and code in ("NoSuchKey", "404") else code
        return ""
