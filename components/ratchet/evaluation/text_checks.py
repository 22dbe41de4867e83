"""Check a generated text by patterns: malformed, a refusal, personal data, words copied from elsewhere."""

import re

from ratchet.privacy.checksums import passes_luhn

MAX_REPEATED_SHARE = 0.5  # Gopher (Rae et al. 2021, table A1) drops texts at far less; short answers repeat more
MIN_WORDS_TO_JUDGE = 12
RUN_WORDS = 8  # as PaLM's overlap analysis (Chowdhery et al. 2022, section 8): shorter runs are common phrases

_CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|^(?:user|assistant|system)\s*$", re.M
)
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\ufffd(?!\Z)")  # the last character may be cut at the limit
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)? (?:really |very |so )?(?:sorry|afraid|unable|not able|not comfortable)\b"
    r"|i (?:can't|cannot|can not|won't|will not|must decline|must refuse|refuse)\b"
    r"|(?:it is|it's) not (?:appropriate|ethical|legal|safe) to\b|as an ai\b)"
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"\+?\(?\d[\d ().-]{8,}\d")


def format_fault(text: str) -> str | None:
    """Return the fault of a malformed answer: empty, broken_text, control_tokens or repetition; None if well-formed."""
    if not re.search(r"\w", text):
        return "empty"
    if _BROKEN.search(text):
        return "broken_text"
    if _CONTROL.search(text):
        return "control_tokens"
    return "repetition" if _is_loop(text) else None


def is_refusal(text: str) -> bool:
    """Return whether the first 200 characters decline to answer. English only."""
    return _REFUSAL.search(text[:200].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None


def personal_data(text: str, prompt: str) -> set[str]:
    """Return the e-mail addresses, phone and card numbers in the text that are not in the prompt."""
    return _identifiers(text) - _identifiers(prompt)


def word_runs(text: str) -> set[str]:
    """Return every run of RUN_WORDS words, in lower case with single spaces; shorter texts have none."""
    words = re.sub(r"\W+", " ", text.lower()).split()
    return {" ".join(words[start : start + RUN_WORDS]) for start in range(len(words) - RUN_WORDS + 1)}


def _identifiers(text: str) -> set[str]:
    numbers = {re.sub(r"\D", "", number) for number in _DIGITS.findall(text)}
    return {address.lower() for address in _EMAIL.findall(text)} | {
        number for number in numbers if 10 <= len(number) <= 15 or (len(number) == 16 and passes_luhn(number))
    }


def _is_loop(text: str) -> bool:
    if re.search(r"(\S)\1{19}", text):
        return True
    words = text.lower().split()
    if len(words) < MIN_WORDS_TO_JUDGE:
        return False
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) > MAX_REPEATED_SHARE
