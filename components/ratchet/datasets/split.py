"""Train or eval, by whole groups: nothing that is judged in eval was seen in training, not even nearly.

A group is a connected component over conversations and clusters of prompts that are nearly the same. A cluster that
many conversations share (a hub: a greeting, a suggested question) would join all of them into one group; it is left
out of the graph, and it and every group that it touches are trained on.

Once a conversation is on a side, its group stays there in later builds; where groups of two sides grow together, eval
wins, so that nothing once held out is ever trained on.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ratchet.compute.hashing import sorted_unique, splitmix64
from ratchet.datasets.near_duplicates import components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ratchet.datasets.near_duplicates import Labels

FROZEN = {"conversation": pl.UInt64, "is_eval": pl.Boolean}
TRAIN, EVAL, RECENT = "train", "eval", "recent"


@dataclass(frozen=True)
class Split:
    """The side of each cluster and conversation, and what there is to say about it.

    `clusters` has `cluster, group, side`; `conversations` has `conversation, is_eval` and leaves out the recent ones,
    which are to be decided later.
    """

    clusters: pl.DataFrame
    conversations: pl.DataFrame
    num_groups: int
    num_eval_groups: int
    num_hubs: int
    num_recent_groups: int
    largest_group: int
    """Prompt clusters in the largest group."""


def split(
    seen: pl.DataFrame,
    *,
    eval_share: float,
    seed: int,
    hub_conversations: int,
    frozen: pl.DataFrame | None = None,
    recent_since: float | None = None,
) -> Split:
    """Divide `seen`: a row for each (cluster, conversation), with `first_at`, when it was first judged.

    Clusters are numbered from 0; `conversation` is a stable hash of its id, `frozen` holds those decided before. A
    new group's side is a hash of its smallest conversation. Groups first judged at `recent_since` or later are
    `recent`. A group with more than half of all conversations is trained on: held out, it would leave too little.
    """
    names, conversation = np.unique(seen["conversation"].to_numpy(), return_inverse=True)
    cluster = seen["cluster"].to_numpy().astype(np.int64)
    num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    was_train, was_eval = _frozen_sides(names, frozen)
    is_hub, labels = _graph(cluster, conversation, num_clusters, was_eval, hub_conversations)

    group = labels[num_clusters:]  # of each conversation
    num_labels = int(labels.max()) + 1 if len(labels) else 0
    touched = np.zeros(num_labels, dtype=np.bool_)
    touched[group[conversation[is_hub[cluster]]]] = True
    holds_eval, holds_train = (_any(group, flags, num_labels) for flags in (was_eval, was_train))
    smallest = np.full(num_labels, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, group, names)
    name = splitmix64(smallest ^ splitmix64(np.array([seed], dtype=np.uint64)))
    is_oversize = np.bincount(group, minlength=num_labels) * 2 > max(len(names), 2)
    is_chosen = (name / 2**64 < eval_share) & ~touched & ~is_oversize
    is_eval = holds_eval | (is_chosen & ~holds_train)
    is_live = np.bincount(group, minlength=num_labels) > 0
    if is_eval[is_live].all():  # nothing to train on is no dataset, but what was held out stays so
        is_eval = holds_eval
    is_recent = ~is_eval & ~holds_train & ~touched & _all_since(seen, group[conversation], num_labels, recent_since)

    side = np.where(is_eval, EVAL, np.where(is_recent, RECENT, TRAIN))
    home = _home(cluster, conversation, names, num_clusters)  # a hub's: the group of its smallest conversation
    of_cluster = np.where(is_hub, group[home] if len(home) else home, labels[:num_clusters])
    sides = np.where(is_hub, TRAIN, side[of_cluster]) if num_clusters else np.zeros(0, dtype="<U6")
    decided = ~is_recent[group]
    return Split(
        clusters=pl.DataFrame(
            {
                "cluster": np.arange(num_clusters, dtype=np.int32),
                "group": hexadecimal(name[of_cluster]),
                "side": pl.Series(sides.tolist(), dtype=pl.String),
            }
        ),
        conversations=pl.DataFrame({"conversation": names[decided], "is_eval": is_eval[group][decided]}, schema=FROZEN),
        num_groups=int(is_live.sum()),
        num_eval_groups=int((is_eval & is_live).sum()),
        num_hubs=int(is_hub.sum()),
        num_recent_groups=int((is_recent & is_live).sum()),
        largest_group=int(np.bincount(labels[:num_clusters]).max()) if num_clusters else 0,
    )


def hexadecimal(numbers: "NDArray[np.uint64]") -> pl.Series:
    """Sixteen hexadecimal digits each."""
    digits = numbers.astype(">u8").tobytes().hex().encode()
    return pl.Series(np.frombuffer(digits, dtype="S16").astype(str).tolist(), dtype=pl.String)


def _graph(
    cluster: "NDArray[np.int64]",
    conversation: "NDArray[np.int64]",
    num_clusters: int,
    was_eval: "NDArray[np.bool_]",
    hub_conversations: int,
) -> tuple["NDArray[np.bool_]", "Labels"]:
    """Which clusters are hubs, and the group of each cluster and then each conversation.

    No hub may touch a group that was held out before, or the two would leak; such a cluster joins the graph after all.
    """
    packed = sorted_unique(((cluster << 32) | conversation).view(np.uint64)).view(np.int64)
    pairs = np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1)
    nodes = pairs + np.array([0, num_clusters])
    is_hub = np.bincount(pairs[:, 0], minlength=num_clusters) > hub_conversations
    # Where hubs are most of what there is, the data is small or narrow, and there would be nothing left to hold out.
    if len(np.unique(pairs[is_hub[pairs[:, 0]], 1])) * 2 > len(was_eval):
        is_hub[:] = False
    while True:
        edges = nodes[~is_hub[pairs[:, 0]]]
        labels = components(num_clusters + len(was_eval), edges)
        group = labels[num_clusters:]
        held_out = _any(group, was_eval, int(labels.max()) + 1 if len(labels) else 0)
        clash = np.unique(pairs[is_hub[pairs[:, 0]] & held_out[group[pairs[:, 1]]], 0])
        if not len(clash):
            return is_hub, labels
        is_hub[clash] = False


def _frozen_sides(
    names: "NDArray[np.uint64]", frozen: pl.DataFrame | None
) -> tuple["NDArray[np.bool_]", "NDArray[np.bool_]"]:
    known = pl.DataFrame(schema=FROZEN) if frozen is None else frozen
    found = pl.DataFrame({"conversation": names}, schema={"conversation": pl.UInt64}).join(
        known.group_by("conversation").agg(pl.col("is_eval").any()),
        on="conversation",
        how="left",
        maintain_order="left",
    )["is_eval"]
    return (~found).fill_null(False).to_numpy(), found.fill_null(False).to_numpy()


def _any(group: "Labels", flags: "NDArray[np.bool_]", num_labels: int) -> "NDArray[np.bool_]":
    found = np.zeros(num_labels, dtype=np.bool_)
    found[group[flags]] = True
    return found


def _all_since(seen: pl.DataFrame, group: "Labels", num_labels: int, since: float | None) -> "NDArray[np.bool_]":
    if since is None:
        return np.zeros(num_labels, dtype=np.bool_)
    return ~_any(group, (seen["first_at"] < since).to_numpy(), num_labels)


def _home(
    cluster: "NDArray[np.int64]", conversation: "NDArray[np.int64]", names: "NDArray[np.uint64]", num_clusters: int
) -> "NDArray[np.int64]":
    """The smallest conversation of each cluster; `names` are sorted, so their places are in order too."""
    home = np.full(num_clusters, len(names), dtype=np.int64)
    np.minimum.at(home, cluster, conversation)
    return home
