"""The prompts of the simulated users: every form of question about every topic, shuffled by a seed."""

import random

TOPICS = [
    "volcanoes", "bread", "the moon", "bicycles", "chess", "coffee", "glaciers", "bees", "the violin", "batteries",
    "rainbows", "tea", "maps", "clouds", "salt", "whales", "trains", "honey", "paper", "glass", "sleep", "gravity",
    "libraries", "bridges", "penguins", "chocolate", "deserts", "magnets", "pianos", "forests", "clocks", "sharks",
    "cheese", "lightning", "tides", "soap", "owls", "kites", "coral reefs", "wind turbines",
]  # fmt: skip
FORMS = [
    "Tell me about {}.",
    "Why do people like {}?",
    "What should a child know about {}?",
    "Give me one interesting fact about {}.",
    "In your own words, what makes {} special?",
    "I have to write about {}. Where do I begin?",
]


def prompts(seed: int) -> list[str]:
    """Return all 240 prompts, shuffled."""
    asked = [form.format(topic) for topic in TOPICS for form in FORMS]
    random.Random(seed).shuffle(asked)
    return asked
