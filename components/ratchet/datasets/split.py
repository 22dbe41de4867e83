"""Split into train and eval by whole groups, so that no eval prompt, nor a near duplicate of one, is trained on.

A group is a connected component over conversations and clusters of near-duplicate prompts. A cluster that many
conversations share (a hub: a greeting, a suggested question) would join all of them into one group; it is left out of
the graph, and it and every group that it touches are trained on.

The split is frozen: once a conversation is on a side, its group stays there in later builds. Where groups of two sides
grow together, eval wins, so that nothing once held out is ever trained on.
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
    """The side of each cluster and conversation, and counts of groups.

    `clusters` has `cluster, group, side`; `conversations` has `conversation, is_eval` and leaves out the recent ones,
    which a later build decides.
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
    """Divide `seen`: one row for each (cluster, conversation), with `first_at`, when it was first voted on (Unix s).

    Clusters are numbered from 0; `conversation` is a stable hash of its id; `frozen` holds the conversations decided
    before. The side of a new group is a hash of its smallest conversation. Groups first voted on at `recent_since` or
    later are `recent`. A group with more than half of all conversations is trained on: holding it out would leave too
    little.
    """
    conversations, conversation = np.unique(seen["conversation"].to_numpy(), return_inverse=True)
    cluster = seen["cluster"].to_numpy().astype(np.int64)
    was_train, was_eval = _frozen_sides(conversations, frozen)
    graph = _build_graph(cluster, conversation, conversations, was_eval, hub_conversations)
    # A group's name: a hash of the seed and its smallest conversation, uniform over 64 bits.
    names = splitmix64(graph.smallest ^ splitmix64(np.array([seed], dtype=np.uint64)))
    is_eval = _choose_eval(graph, names, eval_share, was_train, was_eval)
    is_recent = np.zeros(graph.num, dtype=np.bool_)
    if recent_since is not None:
        is_recent = ~(is_eval | _any(graph.of_conversation, was_train, graph.num) | graph.has_hub)
        is_recent &= ~_any(graph.of_conversation[conversation], (seen["first_at"] < recent_since).to_numpy(), graph.num)

    decided = ~is_recent[graph.of_conversation]
    is_live = np.bincount(graph.of_conversation, minlength=graph.num) > 0
    largest = int(np.bincount(graph.of_cluster).max()) if len(graph.of_cluster) else 0
    return Split(
        clusters=_cluster_sides(graph, names, is_eval, is_recent),
        conversations=pl.DataFrame(
            {"conversation": conversations[decided], "is_eval": is_eval[graph.of_conversation][decided]}, schema=FROZEN
        ),
        num_groups=int(is_live.sum()),
        num_eval_groups=int((is_eval & is_live).sum()),
        num_hubs=int(graph.is_hub.sum()),
        num_recent_groups=int((is_recent & is_live).sum()),
        largest_group=largest,
    )


@dataclass(frozen=True)
class _Graph:
    """The groups, as numbers: of each cluster, and of each conversation in the order of their hashes."""

    is_hub: "NDArray[np.bool_]"
    """By cluster. A hub's `of_cluster` is a group of its own, which holds no conversation."""
    of_cluster: "Labels"
    of_conversation: "Labels"
    num: int
    home: "Labels"
    """By cluster, the group of its smallest conversation."""
    smallest: "NDArray[np.uint64]"
    """By group, the hash of its smallest conversation."""
    has_hub: "NDArray[np.bool_]"
    """By group: whether one of its conversations is also in a hub."""


def _build_graph(
    cluster: "NDArray[np.int64]",
    conversation: "NDArray[np.int64]",
    conversations: "NDArray[np.uint64]",
    was_eval: "NDArray[np.bool_]",
    hub_conversations: int,
) -> _Graph:
    """Connect clusters and conversations, hubs left out; rows are (cluster, index into the sorted `conversations`)."""
    num_clusters = int(cluster.max()) + 1 if len(cluster) else 0
    is_hub, labels = _connect(cluster, conversation, num_clusters, was_eval, hub_conversations)
    of_conversation = labels[num_clusters:]
    num = int(labels.max()) + 1 if len(labels) else 0
    smallest = np.full(num, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, of_conversation, conversations)
    first = np.full(num_clusters, len(conversations), dtype=np.int64)
    np.minimum.at(first, cluster, conversation)
    has_hub = np.zeros(num, dtype=np.bool_)
    has_hub[of_conversation[conversation[is_hub[cluster]]]] = True
    home = of_conversation[first]
    return _Graph(is_hub, labels[:num_clusters], of_conversation, num, home, smallest, has_hub)


def _choose_eval(
    graph: _Graph,
    names: "NDArray[np.uint64]",
    eval_share: float,
    was_train: "NDArray[np.bool_]",
    was_eval: "NDArray[np.bool_]",
) -> "NDArray[np.bool_]":
    """Return which groups are held out: those with a held-out conversation, and a share of the new ones, by name."""
    sizes = np.bincount(graph.of_conversation, minlength=graph.num)
    holds_eval, holds_train = (_any(graph.of_conversation, flags, graph.num) for flags in (was_eval, was_train))
    is_oversize = sizes * 2 > max(len(graph.of_conversation), 2)
    is_chosen = (names / 2**64 < eval_share) & ~graph.has_hub & ~is_oversize
    is_eval: NDArray[np.bool_] = holds_eval | (is_chosen & ~holds_train)
    # With nothing to train on there is no dataset, so nothing new is held out then; what was held out stays so.
    return holds_eval if is_eval[sizes > 0].all() else is_eval


def _cluster_sides(
    graph: _Graph, names: "NDArray[np.uint64]", is_eval: "NDArray[np.bool_]", is_recent: "NDArray[np.bool_]"
) -> pl.DataFrame:
    """Return `cluster, group, side`; a hub is trained on, under the group of its smallest conversation."""
    group = np.where(graph.is_hub, graph.home, graph.of_cluster)
    side = np.where(is_eval, EVAL, np.where(is_recent, RECENT, TRAIN))[group]
    return pl.DataFrame(
        {
            "cluster": np.arange(len(group), dtype=np.int32),
            "group": hexadecimal(names[group]),
            "side": pl.Series(np.where(graph.is_hub, TRAIN, side).tolist(), dtype=pl.String),
        }
    )


def hexadecimal(numbers: "NDArray[np.uint64]") -> pl.Series:
    """Return each number as sixteen hexadecimal digits."""
    digits = numbers.astype(">u8").tobytes().hex().encode()
    return pl.Series(np.frombuffer(digits, dtype="S16").astype(str).tolist(), dtype=pl.String)


def _connect(
    cluster: "NDArray[np.int64]",
    conversation: "NDArray[np.int64]",
    num_clusters: int,
    was_eval: "NDArray[np.bool_]",
    hub_conversations: int,
) -> tuple["NDArray[np.bool_]", "Labels"]:
    """Return which clusters are hubs, and the label of each cluster, then of each conversation.

    A hub is trained on, so none may touch a group that was held out before; such a cluster joins the graph after all.
    """
    packed = sorted_unique(((cluster << 32) | conversation).view(np.uint64)).view(np.int64)
    pairs = np.stack([packed >> 32, packed & 0xFFFFFFFF], axis=1)
    nodes = pairs + np.array([0, num_clusters])
    is_hub = np.bincount(pairs[:, 0], minlength=num_clusters) > hub_conversations
    # Where most conversations are in hubs, the data is small or narrow, and too little would be left to hold out.
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
    was_eval = pl.DataFrame({"conversation": names}, schema={"conversation": pl.UInt64}).join(
        known.group_by("conversation").agg(pl.col("is_eval").any()),
        on="conversation",
        how="left",
        maintain_order="left",
    )["is_eval"]
    return (~was_eval).fill_null(False).to_numpy(), was_eval.fill_null(False).to_numpy()


def _any(group: "Labels", flags: "NDArray[np.bool_]", num_labels: int) -> "NDArray[np.bool_]":
    has_flag = np.zeros(num_labels, dtype=np.bool_)
    has_flag[group[flags]] = True
    return has_flag
