"""Users who vote at a steady rate over kept connections, each until the vote is acknowledged. A process of its own.

`python vote_load.py URL[,URL] SECRET RATE SECONDS` prints one JSON object: votes sent, acknowledged, refused and tried
again, and the latency of an acknowledgement from when its vote was due. Connections are shared out among the routers.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

from ratchet.router.tokens import Signer, Ticket

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

    def __init__(self, urls: list[str], signer: Signer, rate: float, seconds: float) -> None:
        self.urls, self.signer = urls, signer
        self.rate, self.num_votes = rate, int(rate * seconds)
        self.latencies_s: list[float] = []
        self.num_refused = 0
        self.num_given_up = 0
        self._turns = iter(range(self.num_votes))

    async def run(self) -> dict[str, float]:
        self.started = time.perf_counter()
        await asyncio.gather(*(self._user(self.urls[number % len(self.urls)]) for number in range(NUM_CONNECTIONS)))
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

    async def _user(self, url: str) -> None:
        place = urlsplit(url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        for number in self._turns:
            due = self.started + number / self.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            message = request(self.signer, number, place.netloc)
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
    urls, secret, rate, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(Load(urls.split(","), Signer.of(secret), float(rate), float(seconds)).run())))
