"""Triplets with known faults in them: personal data of fifteen kinds and rows broken in twenty-five ways.

Made up here and known to the last row, so what a detector finds and misses can be counted. Tests use small tables of
it, benchmarks large ones.
"""

import base64
import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from ratchet.lake.schema import COLLECTION, TRIPLETS
from ratchet.privacy.detectors import KINDS

NOW_S = 1_767_300_000.0
LIMITS = {"max_prompt_chars": 32_000, "max_response_chars": 32_000}
WORDS = re.findall(
    r"\w+",
    """the a of to and in is that it for on with as was by this be are from at or an have not which you we they
bread water honey paper river garden music engine winter letter market bridge window silver mountain doctor teacher
slowly often never always quickly quietly maybe perhaps grows makes takes gives finds keeps turns moves holds brings
small large bright heavy simple common gentle famous modern ancient local careful because although while until""",
)
DIGITS = [
    "in 1987",
    "about 42 of them",
    "chapter 7",
    "for 3 days",
    "page 212",
    "some 1,250 people",
    "at 10:30",
    "no. 5",
]
COLUMNS = ("messages", "response", "other_response", "value_text", "comment")


def triplets(num_rows: int, seed: int = 0) -> pl.DataFrame:
    """Good triplets of a few hundred characters: thumbs, ratings, corrections and preferences."""
    rng = random.Random(seed)
    sentences = pl.Series([_sentence(rng) for _ in range(4000)])
    at = pl.int_range(num_rows, dtype=pl.Int64)
    pick = [(at * step + seed) % len(sentences) for step in (7919, 104729, 1299709, 15485863, 179424673)]
    parts = pl.select(**{f"s{number}": place for number, place in enumerate(pick)}).select(
        pl.all().map_batches(sentences.gather, return_dtype=pl.String)
    )
    kind = pl.Series(["thumb", "rating", "correction", "preference"]).gather(pl.select(at % 4).to_series())
    numbered = parts.with_columns(kind=kind, number=at)
    kind_is = pl.col("kind")
    rows = numbered.select(
        triplet_id=pl.format("f-{}", pl.col("number").cast(pl.String).str.zfill(9)),
        interaction_id=pl.format("i-{}", "number"),
        conversation_id=pl.format("c-{}", pl.col("number") // 3),
        subject_id=pl.format("u-{}", pl.col("number") % 5000),
        messages=pl.concat_str(pl.lit('[{"content":"'), "s0", pl.lit('","role":"user"}]')),
        response=pl.concat_str("s1", "s2", "s3", separator=" "),
        kind="kind",
        value_num=pl.when(kind_is == "thumb").then(1.0).when(kind_is == "rating").then(pl.col("number") % 5 + 1.0),
        value_text=pl.when(kind_is == "correction")
        .then("s4")
        .when(kind_is == "preference")
        .then(pl.format("i-{}", "number")),
        other_response=pl.when(kind_is == "preference").then("s2"),
        created_at=NOW_S + pl.col("number") % (30 * 86_400),
        served_at=NOW_S - 60,
    )
    return _complete(rows)


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    fixed = {
        "source": "human",
        "is_tie": False,
        "tenant": "default",
        "finish_reason": "stop",
        "base_model": "tiny",
        "consent_training": "granted",
        COLLECTION: 1,
    }
    for name, kind in TRIPLETS.schema.items():
        if name not in rows.columns:
            rows = rows.with_columns(
                pl.lit(fixed.get(name)).cast(pl.DataFrame(schema={name: kind})[name].dtype).alias(name)
            )
    return rows.select(list(TRIPLETS.schema))


def _sentence(rng: random.Random) -> str:
    words = rng.choices(WORDS, k=rng.randint(10, 18))
    if rng.random() < 0.08:
        words.append(rng.choice(DIGITS))
    return " ".join(words).capitalize() + "."


# --- personal data


@dataclass(frozen=True)
class Secret:
    """Something personal in a table: in which row and column, of what kind, and the very characters."""

    row: int
    column: str
    kind: str
    text: str


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def _letters(rng: random.Random, count: int, of: str = string.ascii_letters + string.digits) -> str:
    return "".join(rng.choices(of, k=count))


def _email(rng: random.Random) -> str:
    name = rng.choice(["ann", "bob.stone", "li_wei", "o'neil", "jürgen", "x+news", "anna-lena.k"])
    host = rng.choice(["example.com", "mail.example.co.uk", "münchen.example.de", "a.io"])
    return f"{name}{rng.choice(['', '7', '.90'])}@{host}"


def _phone(rng: random.Random) -> str:
    area, middle, last = rng.randint(201, 989), rng.randint(200, 999), _digits(rng, 4)
    shapes = [
        f"+1 ({area}) {middle}-{last}",
        f"{area}-{middle}-{last}",
        f"({area}) {middle}-{last}",
        f"+44 20 7946 {last}",
        f"+49 151 {_digits(rng, 8)}",
        f"{area}.{middle}.{last}",
        f"030 {_digits(rng, 4)} {_digits(rng, 4)}",
        f"+86138{_digits(rng, 8)}",
    ]
    return rng.choice(shapes)


def _card(rng: random.Random) -> str:
    prefix, length = rng.choice([("4", 16), ("51", 16), ("55", 16), ("34", 15), ("37", 15), ("6011", 16), ("2221", 16)])
    body = prefix + _digits(rng, length - len(prefix) - 1)
    total = sum(sum(divmod(int(d) * (2 if place % 2 == 0 else 1), 10)) for place, d in enumerate(reversed(body)))
    number = body + str(-total % 10)
    separator = rng.choice(["", " ", "-"])
    return separator.join(number[start : start + 4] for start in range(0, length, 4))


def _iban(rng: random.Random) -> str:
    country, bank, length = rng.choice(
        [("DE", "", 22), ("GB", "WEST", 22), ("NL", "ABNA", 18), ("FR", "", 27), ("NO", "", 15)]
    )
    body = bank + _digits(rng, length - 4 - len(bank))
    check = 98 - int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
    number = f"{country}{check:02d}{body}"
    return number if rng.random() < 0.5 else " ".join(number[start : start + 4] for start in range(0, length, 4))


def _ip(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return ":".join(f"{rng.randint(0x2000, 0x3FFF):x}" for _ in range(8))
    return ".".join([str(rng.randint(128, 223)), *(str(rng.randint(11, 223)) for _ in range(3))])  # 127 is nobody's


def _token(rng: random.Random) -> str:
    shapes = [
        f"ghp_{_letters(rng, 36)}",
        f"github_pat_{_letters(rng, 40)}",
        f"xoxb-{_digits(rng, 12)}-{_letters(rng, 24)}",
        f"glpat-{_letters(rng, 20)}",
        f"hf_{_letters(rng, 34)}",
        f"npm_{_letters(rng, 36)}",
    ]
    return rng.choice(shapes)


def _api_key(rng: random.Random) -> str:
    upper = string.ascii_uppercase + string.digits
    return rng.choice(
        [
            f"AKIA{_letters(rng, 16, upper)}",
            f"AIza{_letters(rng, 35)}",
            f"sk_live_{_letters(rng, 24)}",
            f"sk-{_letters(rng, 40)}",
        ]
    )


def _jwt(rng: random.Random) -> str:
    parts = [json.dumps({"alg": "HS256"}), json.dumps({"sub": _digits(rng, 8)}), _letters(rng, 24)]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def _private_key(rng: random.Random) -> str:
    name = rng.choice(["RSA ", "EC ", "OPENSSH ", ""])
    lines = "\n".join(_letters(rng, 64) for _ in range(3))
    return f"-----BEGIN {name}PRIVATE KEY-----\n{lines}\n-----END {name}PRIVATE KEY-----"


def _birth(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1930, 2010)
    return rng.choice(
        [f"{year}-{month:02d}-{day:02d}", f"{day:02d}.{month:02d}.{year}", f"{day} March {year}", f"July {day}, {year}"]
    )


def _ssn(rng: random.Random) -> str:
    return f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"


def _password(rng: random.Random) -> str:
    return f"{_letters(rng, 6)}{rng.choice('!#$%')}{_digits(rng, 2)}"


# How each kind is written, and in what words.
PERSONAL: dict[str, tuple[Callable[[random.Random], str], list[str]]] = {
    "EMAIL": (_email, ["Write to {}.", "My address is {}, thanks", "<{}>"]),
    "PHONE": (_phone, ["Call {}.", "tel: {}", "My number is {} at night."]),
    "CARD": (_card, ["Pay with {} please.", "card {}", "Visa {} exp 12/27"]),
    "IBAN": (_iban, ["Send it to {} today.", "IBAN: {}", "account {}."]),
    "IP": (_ip, ["The host {} is down.", "from {}", "ping {} fails"]),
    "SSN": (_ssn, ["My SSN is {}.", "social security {}", "({})"]),
    "MAC": (lambda rng: ":".join(f"{rng.randint(0, 255):02x}" for _ in range(6)), ["device {}", "MAC {}."]),
    "URL_CREDENTIALS": (
        lambda rng: f"{_letters(rng, 6)}:{_letters(rng, 9)}",
        ["git clone https://{}@git.example.com/a.git", "postgres://{}@db.example.com:5432/x"],
    ),
    "API_KEY": (_api_key, ["key={}", "My key {} is rejected.", "export KEY={}"]),
    "TOKEN": (_token, ["token {}", "I pushed {} by mistake.", "TOKEN={}"]),
    "JWT": (_jwt, ["cookie {}", "It says {} there."]),
    "PRIVATE_KEY": (_private_key, ["{}", "Here:\n{}\nDoes it work?"]),
    "PASSWORD": (_password, ["password: {}", "my password is {} ok", "pwd={}"]),
    "DATE_OF_BIRTH": (_birth, ["I was born on {}.", "DOB: {}", "Date of birth: {} and I live here."]),
    "PASSPORT": (
        lambda rng: f"{_letters(rng, 1, string.ascii_uppercase)}{_digits(rng, 8)}",
        ["Passport number {}", "passport no. {} expires"],
    ),
}
# What looks like it and is not.
DECOYS = [
    "Order 4111 1111 1111 1112 has shipped.", "Version 10.2.3.4.5 is out.", "We met at 12:30:45 sharp.",
    "ISBN 978-3-16-148410-0", "The password is required.", "SSN 000-12-3456 is a sample.",
    "It costs 1,234,567.89 in all.",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8", "550e8400-e29b-41d4-a716-446655440000", "@mention in a chat",
    "pi is 3.14159265358979", "timestamps like 1700000000000", "x = a@b", "from 1939 to 1945", "localhost is 127.0.0.1",
    "The bearer of good news", "DE00 0000 0000 0000 0000 00", "f(x) = 2x + 1 at (3, 7)", "a born leader in 1999",
    "ratio 16:9:4",
]  # fmt: skip


def plant_personal(rows: pl.DataFrame, share: float, seed: int = 0) -> tuple[pl.DataFrame, list[Secret]]:
    """The table with secrets in `share` of its rows, decoys in as many others, and what stands where."""
    rng = random.Random(seed)
    number = int(rows.height * share)
    places = rng.sample(range(rows.height), 2 * number)
    secrets, changed = [], {name: rows[name].to_list() for name in COLUMNS}
    kinds = list(PERSONAL)
    for turn, row in enumerate(places[:number]):
        kind = kinds[turn % len(kinds)]
        write, frames = PERSONAL[kind]
        secret = Secret(row, _column(rng, rows, row), kind, write(rng))
        secrets.append(secret)
        _add(changed, secret.row, secret.column, rng.choice(frames).format(secret.text))
    for row in places[number:]:
        _add(changed, row, _column(rng, rows, row), rng.choice(DECOYS))
    return rows.with_columns(pl.Series(name, values, dtype=pl.String) for name, values in changed.items()), secrets


def _column(rng: random.Random, rows: pl.DataFrame, row: int) -> str:
    free = {"correction": "value_text", "preference": "other_response"}.get(rows[row, "kind"], "comment")
    return rng.choice(["messages", "response", free])


def _add(texts: dict[str, list[str | None]], row: int, column: str, words: str) -> None:
    before = texts[column][row]
    if column == "messages":
        [turn] = json.loads(before or "[]")
        turn["content"] += f"\n{words}"
        texts[column][row] = json.dumps([turn], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    else:
        texts[column][row] = words if before is None else f"{before} {words}"


@dataclass(frozen=True)
class Score:
    """How well something was found: of what was there, how much (recall), and of what was found, how much was there."""

    planted: int
    found: int
    right: int

    @property
    def recall(self) -> float:
        return self.right / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0


def score_personal(after: pl.DataFrame, secrets: list[Secret]) -> dict[str, Score]:
    """By kind. Right is a secret whose characters are gone and whose text has a placeholder of its kind."""
    found: Counter[str] = Counter()
    for name in COLUMNS:
        for kind in KINDS:
            found[kind] += int(after[name].str.count_matches(f"[{kind}]", literal=True).sum())
    columns = {name: after[name].to_list() for name in COLUMNS}
    right: Counter[str] = Counter()
    for secret in secrets:
        text = columns[secret.column][secret.row]
        inside = json.dumps(secret.text, ensure_ascii=False)[1:-1]  # as it stands in the prompt's JSON
        right[secret.kind] += f"[{secret.kind}]" in text and secret.text not in text and inside not in text
    planted = Counter(secret.kind for secret in secrets)
    return {kind: Score(planted[kind], found[kind], right[kind]) for kind in KINDS}


# --- broken rows

BROKEN: dict[str, dict[str, object]] = {
    "interaction_id_missing": {"interaction_id": None},
    "conversation_id_empty": {"conversation_id": " \u3000"},
    "subject_id_empty": {"subject_id": ""},
    "kind_unknown": {"kind": "applause", "value_text": None},
    "source_unknown": {"source": "oracle"},
    "served_at_missing": {"served_at": None},
    "served_at_absurd": {"served_at": NOW_S * 1000},
    "created_at_missing": {"created_at": float("nan")},
    "created_at_absurd": {"created_at": -5.0},
    "prompt_empty": {"messages": "[]"},
    "prompt_too_long": {"messages": json.dumps([{"content": "x" * 32_001, "role": "user"}])},
    "role_unknown": {"messages": '[{"content":"Hocus pocus.","role":"wizard"}]'},
    "response_empty": {"response": "\n\x1c\u2028"},
    "response_too_long": {"response": "é" * 32_001},
    "value_not_a_number": {"kind": "rating", "value_num": None, "value_text": "five"},
    "thumb_not_up_or_down": {"kind": "thumb", "value_num": 0.5, "value_text": None},
    "rating_out_of_range": {"kind": "rating", "value_num": 11.0, "value_text": None},
    "measure_out_of_range": {"kind": "dwell_ms", "value_num": float("inf"), "value_text": None},
    "correction_not_a_text": {"kind": "correction", "value_num": 3.0, "value_text": None},
    "correction_empty": {"kind": "correction", "value_num": None, "value_text": " \t\n"},
    "correction_too_long": {"kind": "correction", "value_num": None, "value_text": "x" * 32_001},
    "other_response_missing": {"kind": "preference", "value_text": "i-1", "other_response": None},
    "other_response_empty": {"kind": "preference", "value_text": "i-1", "other_response": "\xa0"},
    "other_response_too_long": {"kind": "preference", "value_text": "i-1", "other_response": "x" * 32_001},
    "triplet_id_repeated": {},
}


def plant_broken(rows: pl.DataFrame, each: int, seed: int = 0) -> tuple[pl.DataFrame, dict[str, set[str]]]:
    """The table, sorted by id, with `each` rows broken in each way, and the ids of those by reason."""
    order = random.Random(seed).sample(range(rows.height), each * len(BROKEN))
    planted, parts = {}, []
    for turn, (reason, change) in enumerate(BROKEN.items()):
        places = order[turn * each : (turn + 1) * each]
        some = rows[places].with_columns(pl.lit(value, rows.schema[name]).alias(name) for name, value in change.items())
        planted[reason] = set(some["triplet_id"])
        parts += [some, some] if reason == "triplet_id_repeated" else [some]
    rest = rows.with_row_index("at").filter(~pl.col("at").is_in(order)).drop("at")
    return pl.concat([rest, *parts]).sort("triplet_id"), planted


def score_broken(bad: pl.DataFrame, planted: dict[str, set[str]]) -> dict[str, Score]:
    """By reason: rows in quarantine under it against rows broken so."""
    named = bad.select("triplet_id", "reasons").explode("reasons", empty_as_null=True, keep_nulls=True)
    scores = {}
    for reason, ids in planted.items():
        found = set(named.filter(pl.col("reasons") == reason)["triplet_id"])
        scores[reason] = Score(len(ids), len(found), len(found & ids))
    return scores
