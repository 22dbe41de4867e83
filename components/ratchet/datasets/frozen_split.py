"""The frozen split: a durable record of held-out conversations, so that no later build trains on one.

A build writes the sides of new conversations to a create-only Parquet file, `splits/<series>/<number>.parquet`. Numbers
count up, so of two concurrent builds one wins (optimistic concurrency). A series is one seed and eval share. Every file
names the build that it was made for, so a repeated build finds its own file, starts from the files before it, as it did
the first time, and gives the same bytes.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratchet.digest import digest_bytes, digest_json
from ratchet.errors import Conflict, UserError
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

FOLDER = "splits"
MADE_FOR = "ratchet.made_for"
CHAIN = "ratchet.chain"
NOTHING = digest_json([])


@dataclass(frozen=True)
class Assignments:
    """The files that a build starts from, oldest first, and a digest of their content."""

    series: str
    made_for: str
    files: tuple[str, ...]
    digest: str

    def read(self, store: Store) -> "pl.DataFrame":
        """Return `conversation, is_eval` of every conversation decided before."""
        import polars as pl

        from ratchet.datasets.split import FROZEN

        tables = [pl.read_parquet(io.BytesIO(store.read(file))) for file in self.files]
        return pl.concat([pl.DataFrame(schema=FROZEN), *tables])

    def freeze(self, store: Store, conversations: "pl.DataFrame") -> None:
        """Write the new sides. Raises UserError if another build wrote this file first."""
        known = self.read(store)
        # A conversation that moved to eval, because its group joined a held-out group, is written again.
        new = conversations.join(known, on=["conversation", "is_eval"], how="anti").sort("conversation")
        table = io.BytesIO()
        new.write_parquet(table, compression="zstd", statistics=False)
        chain = digest_json([self.digest, digest_bytes(table.getvalue())])
        file = f"{FOLDER}/{self.series}/{len(self.files) + 1:06d}.parquet"
        sealed = io.BytesIO()
        new.write_parquet(
            sealed, compression="zstd", statistics=False, metadata={MADE_FOR: self.made_for, CHAIN: chain}
        )
        try:
            store.create(file, sealed.getvalue())
        except Conflict:
            if _note(store, file)[MADE_FOR] != self.made_for:
                raise UserError(
                    f"another build of {store.root} froze its split first ({file}); run this one again"
                ) from None


def before(store: Store, series: str, made_for: str) -> Assignments:
    """Return the files that a build for `made_for` starts from: all, or those before its own if it ran before."""
    files = tuple(store.list(f"{FOLDER}/{series}"))
    notes: list[dict[str, str]] = []
    for end in range(len(files), 0, -1):
        notes.append(_note(store, files[end - 1]))
        if notes[-1][MADE_FOR] == made_for:
            chain = _note(store, files[end - 2])[CHAIN] if end > 1 else NOTHING
            return Assignments(series, made_for, files[: end - 1], chain)
    return Assignments(series, made_for, files, notes[0][CHAIN] if notes else NOTHING)


def _note(store: Store, file: str) -> dict[str, str]:
    import polars as pl

    return dict(pl.read_parquet_metadata(io.BytesIO(store.read(file))))
