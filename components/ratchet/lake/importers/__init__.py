"""Importers: other people's preference data as events, so that training has something to start from.

An importer reads one file, lands its events and returns the flow in votes. The files carry no times and no user
ids, so both are made from the content: importing on two machines lands the same bytes, importing twice lands once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ratchet.lake.importers import oasst, pandalm
from ratchet.manifest import Flow
from ratchet.store import Store

IMPORTERS: Mapping[str, Callable[[Store, Path], Flow]] = {
    "oasst": oasst.import_file,
    "pandalm": pandalm.import_file,
}
