"""Train or eval, by whole groups: nothing that is judged in eval was seen in training, not even nearly.

A group is a connected component over conversations and prompts, where prompts that are nearly the same are linked.
"""

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ratchet.digest import digest_json

SHINGLE_WORDS = 3
SHORT_WORDS = 8  # shorter prompts have too few shingles to compare: one changed word would touch half of them


@dataclass(frozen=True)
class Split:
    """The group of each prompt, which groups are held out, and how many prompts the largest group has."""

    group_of: dict[str, str]
    eval_groups: frozenset[str]
    num_groups: int
    largest_group: int


def split(
    conversations: Sequence[str], prompts: Sequence[str], *, near_duplicate: float, eval_share: float, seed: int
) -> Split:
    """Group and divide prompts (chat JSON), each beside the conversation it came from.

    A group's side is a hash of its first conversation id, so new data moves a group only by joining it to another
    (or to a conversation whose id sorts before its own; ids that start with the time never do).
    If every group fell to eval, as a single group may, all are trained on and none is held out.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    text_of = {prompt: prompt_text(prompt) for prompt in set(prompts)}
    texts, names = sorted(set(text_of.values())), sorted(set(conversations))
    text_index = {text: index for index, text in enumerate(texts)}
    name_index = {name: len(texts) + index for index, name in enumerate(names)}
    seen_in = {(name_index[c], text_index[text_of[p]]) for c, p in zip(conversations, prompts, strict=True)}
    edges = np.array([*seen_in, *near_duplicates(texts, near_duplicate)], dtype=np.int64).reshape(-1, 2)
    size = len(texts) + len(names)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(size, size))
    labels = connected_components(graph, directed=False)[1].tolist() if size else []

    first: dict[int, str] = {}
    for name, label in zip(names, labels[len(texts) :], strict=True):
        first.setdefault(label, name)
    group = {label: digest_json({"seed": seed, "first": name}) for label, name in first.items()}
    held_out = frozenset(name[:16] for name in group.values() if int(name[-16:], 16) / 2**64 < eval_share)
    group_of = {prompt: group[labels[text_index[text]]][:16] for prompt, text in text_of.items()}
    sizes = Counter(group_of.values())
    return Split(
        group_of=group_of,
        eval_groups=held_out if len(held_out) < len(group) else frozenset(),
        num_groups=len(group),
        largest_group=max(sizes.values(), default=0),
    )


def near_duplicates(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of indices whose word shingles have Jaccard similarity >= `threshold`, once each.

    Exact, by prefix filtering (Bayardo, Ma and Srikant, WWW 2007): order each set's shingles rarest first; two sets
    that are similar enough share one among the first |x| - ceil(t|x|) + 1, so only those are indexed. MinHash would
    miss some, and here a miss is a leak.
    """
    shingled = [shingles(text) for text in texts]
    frequency = Counter(chain.from_iterable(shingled))
    index: dict[str, list[int]] = defaultdict(list)
    for place, words in enumerate(shingled):
        rarest_first = sorted(words, key=lambda shingle: (frequency[shingle], shingle))
        least_shared = math.ceil(threshold * len(words) - 1e-9)
        prefix = rarest_first[: len(words) - least_shared + 1]
        for other in sorted({found for shingle in prefix for found in index[shingle]}):
            shared = len(words & shingled[other])
            if shared >= threshold * (len(words) + len(shingled[other]) - shared):
                yield other, place
        for shingle in prefix:
            index[shingle].append(place)


def shingles(text: str) -> frozenset[str]:
    """Runs of three words; for a short text its words."""
    words = re.findall(r"\w+", text)
    if len(words) < SHORT_WORDS:
        return frozenset(words)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1))


def prompt_text(messages: str) -> str:
    """What makes two prompts the same: the chat without system messages, which whole products share, normalised."""
    return normalise("\n".join(turn["content"] for turn in json.loads(messages) if turn["role"] != "system"))


def normalise(text: str) -> str:
    """Unicode NFC, case folded, runs of white space as one space."""
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFC", text).casefold().split()))
