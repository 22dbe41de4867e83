"""Users who vote at a steady rate over kept connections, each until the vote is acknowledged. A process of its own.

`python vote_load.py URL SECRET RATE SECONDS` prints one JSON object: votes sent, acknowledged, refused and tried again,
and the latency of an acknowledgement.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

from ratchet.serving.credentials import Signer, Ticket

NUM_CONNECTIONS = 256  # more than wait at once, at a quarter of a second each
MAX_TRIES = 20


def request(signer: Signer, number: int, host: str) -> bytes:
    ticket = Ticket(
        interaction_id=f"i{number % 1000}", subject_id=f"u{number}", tenant="t", adapter_digest="d", arm="canary"
    )
    body = b'{"kind":"thumb","value":1}'
    head = (
        f"POST /v1/feedback HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {signer.sign(ticket)}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Load:
    """What was sent, and what came of it."""

    def __init__(self, url: str, signer: Signer, rate: float, seconds: float) -> None:
        place = urlsplit(url)
        self.host, self.port, self.signer = str(place.hostname), place.port, signer
        self.rate, self.num_votes = rate, int(rate * seconds)
        self.latencies_s: list[float] = []
        self.num_refused = 0
        self.num_given_up = 0
        self._turns = iter(range(self.num_votes))

    async def run(self) -> dict[str, float]:
        self.started = time.perf_counter()
        await asyncio.gather(*(self._user() for _ in range(NUM_CONNECTIONS)))
        took_s = time.perf_counter() - self.started
        waits = sorted(self.latencies_s)
        return {
            "sent": self.num_votes,
            "acknowledged": len(waits),
            "refused_and_sent_again": self.num_refused,
            "given_up": self.num_given_up,
            "seconds": round(took_s, 2),
            "p50_ms": round(1000 * waits[len(waits) // 2], 1),
            "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 1),
        }

    async def _user(self) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        for number in self._turns:
            due = self.started + number / self.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            message = request(self.signer, number, self.host)
            for _ in range(MAX_TRIES):
                writer.write(message)
                status = await _status(reader)
                if status == 200:
                    self.latencies_s.append(time.perf_counter() - due)
                    break
                self.num_refused += 1
                await asyncio.sleep(0.2)
            else:
                self.num_given_up += 1
        writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


if __name__ == "__main__":
    url, secret, rate, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(Load(url, Signer.of(secret), float(rate), float(seconds)).run())))
