r"""Detectors of personal data and secrets: patterns for Rust's regex engine, in the order in which they are replaced.

`\b` and classes are ASCII (`(?-u:…)`), since the engine has no fast automaton for Unicode's. In place of a look-behind,
a pattern captures the text before the match and puts it back (`${1}`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ratchet.privacy.checksums import card, iban, ip_address, phone

B = r"(?-u:\b)"
MONTH = "(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"  # noqa: E501
DATE = (
    r"(?:[0-3]?[0-9][./-][0-3]?[0-9][./-](?:19|20)[0-9]{2}|(?:19|20)[0-9]{2}[./-][01]?[0-9][./-][0-3]?[0-9]"
    rf"|[0-3]?[0-9](?:st|nd|rd|th)?\.? (?:of )?{MONTH}\.?,? (?:19|20)[0-9]{{2}}"
    rf"|{MONTH}\.? [0-3]?[0-9](?:st|nd|rd|th)?,? (?:19|20)[0-9]{{2}})"
)


@dataclass(frozen=True)
class Detector:
    """One kind of personal data or secret: its pattern and its placeholder.

    With a `check`, a match is a candidate: the check returns its replacement, or None to keep it.
    """

    kind: str
    pattern: str
    keep: str = ""
    """Text of the match to keep before the placeholder, as references to its groups."""
    after: str = ""
    check: Callable[[str], str | None] | None = None

    @property
    def placeholder(self) -> str:
        return f"[{self.kind}]"


DETECTORS = (
    Detector(
        "PRIVATE_KEY",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
        r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    Detector("JWT", rf"{B}eyJ[A-Za-z0-9_-]{{8,}}\.eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}"),
    Detector(
        "URL_CREDENTIALS",
        rf"""({B}[a-zA-Z][a-zA-Z0-9+.-]{{1,15}}://)[^\s/:@"'<>\[\]]{{0,256}}:[^\s/@"'<>\[\]]{{1,256}}@""",
        keep="${1}",
        after="@",
    ),
    Detector("API_KEY", rf"{B}(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{{16}}{B}"),  # AWS
    Detector(
        "API_KEY",
        r"""((?i:aws_?secret_?(?:access_?)?key)["']?\s{0,3}[:=]\s{0,3}["']?)[A-Za-z0-9/+]{40}""",
        keep="${1}",
    ),
    Detector("API_KEY", rf"{B}AIza[0-9A-Za-z_-]{{35}}"),  # Google
    Detector("API_KEY", rf"{B}(?:sk|pk|rk)_(?:live|test)_[0-9A-Za-z]{{16,}}"),  # Stripe
    Detector("API_KEY", rf"{B}sk-[A-Za-z0-9_-]{{20,}}"),  # OpenAI, Anthropic
    Detector("TOKEN", rf"{B}(?:gh[pousr]_[A-Za-z0-9]{{36,}}|github_pat_[A-Za-z0-9_]{{22,}})"),
    Detector("TOKEN", rf"{B}xox[abeoprs]-[A-Za-z0-9-]{{10,}}"),  # Slack
    Detector("TOKEN", rf"{B}(?:glpat-[A-Za-z0-9_-]{{20,}}|hf_[A-Za-z0-9]{{30,}}|npm_[A-Za-z0-9]{{36}})"),
    Detector("TOKEN", rf"({B}(?i:bearer)\s{{1,3}})[A-Za-z0-9._~+/-]{{20,}}=*", keep="${1}"),
    Detector(
        "PASSWORD",
        rf"""({B}(?i:passwords?|passwd|passphrase|pwd)["']?(?:\s{{0,3}}[:=]\s{{0,3}}|\s+is\s+)["']?)"""
        r"""(?:[^\s"'\[\],;]{4,64}[0-9!#$%&*^][^\s"'\[\],;]{0,64}|[0-9!#$%&*^][^\s"'\[\],;]{5,64})""",
        keep="${1}",
    ),
    Detector("EMAIL", r"[\p{L}\p{N}._%+'-]+@(?:[\p{L}\p{N}-]+\.)+\p{L}{2,24}"),
    Detector("PHONE", r"\+[0-9](?:[ ().-]{0,2}[0-9]){7,14}", check=phone),
    Detector("IBAN", rf"{B}[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{B}", check=iban),
    Detector("CARD", rf"{B}[0-9](?:[ -]?[0-9]){{12,22}}{B}", check=card),
    Detector(
        "SSN",
        r"(^|[^0-9A-Za-z_.-])(?:00[1-9]|0[1-9][0-9]|[1-578][0-9]{2}|6[0-57-9][0-9]|66[0-57-9])"
        rf"-(?:0[1-9]|[1-9][0-9])-(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{{2}}|[1-9][0-9]{{3}}){B}",
        keep="${1}",
    ),
    Detector("MAC", rf"{B}(?:[0-9A-Fa-f]{{2}}[:-]){{5}}[0-9A-Fa-f]{{2}}{B}"),
    Detector("IP", rf"{B}[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3,}}{B}", check=ip_address),
    Detector("IP", rf"{B}[0-9A-Fa-f]{{1,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}", check=ip_address),
    Detector(
        "DATE_OF_BIRTH",
        rf"({B}(?i:born(?: on)?|date of birth|d\.?o\.?b\.?|birth ?da(?:y|te))(?i: is| was)?\s{{0,3}}[:,-]?\s{{0,3}})"
        rf"{DATE}",
        keep="${1}",
    ),
    Detector(
        "PASSPORT",
        rf"({B}(?i:passport)(?i: number| num| no| nr)?\.?(?i: is)?\s{{0,3}}[:#]?\s{{0,3}})[A-Z]{{0,2}}[0-9]{{6,9}}{B}",
        keep="${1}",
    ),
    Detector(
        "PHONE",
        rf"\([0-9]{{3}}\) ?[0-9]{{3}}[ .-][0-9]{{4}}{B}|{B}[2-9][0-9]{{2}}[-. ][2-9][0-9]{{2}}[-. ][0-9]{{4}}{B}"
        rf"|{B}0[1-9][0-9]{{1,4}}[ /-][0-9]{{3,4}}[ -]?[0-9]{{3,5}}{B}",
        check=phone,
    ),
)
KINDS = tuple(dict.fromkeys(detector.kind for detector in DETECTORS))

# No detector matches a text in which this does not match: a cheap filter that most texts end at.
GATE = (
    r"[0-9](?:[ .,:/()-]{0,2}[0-9]){5}|[0-9]\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}:"
    r"|[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-|[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}|@|-----BEGIN|eyJ|A(?:KI|SI|GP|ID|RO|NP)A|AIza|sk-"
    r"|_live_|_test_|gh[pousr]_|github_pat_|xox|glpat-|hf_|npm_"
    r"|(?i-u:passw|passphrase|pwd|bearer|aws_?secret|born|birth|d\.?o\.?b)"
)
