"""Ask Argo CD to look at Git now: it polls every three minutes, which a rollback should not wait for.

Over Argo CD's own API, where reading an Application with `refresh` makes it look, and whose token may read that one and
do nothing else. Leave to annotate the Application in the cluster would be leave to rewrite it: its source, its project.
"""

import logging
import os
from dataclasses import dataclass

import httpx

from ratchet.release.gate.tokens import bearer

TOKEN = "RATCHET_ARGOCD_TOKEN"  # the variable; in the Secret of the right to push
TIMEOUT_S = 5.0
log = logging.getLogger("ratchet.argocd")


@dataclass(frozen=True)
class Refresh:
    """Asks Argo CD at `url` to compare one Application with Git.

    Calling it never raises: without it the same happens, later.
    """

    url: str
    application: str
    """Its name, or NAMESPACE/NAME where it is not in Argo CD's own namespace."""

    def __call__(self) -> None:
        namespace, _, name = self.application.rpartition("/")
        token = os.environ.get(TOKEN, "").strip()
        try:
            answer = httpx.get(
                f"{self.url.rstrip('/')}/api/v1/applications/{name}",
                params={"refresh": "normal"} | ({"appNamespace": namespace} if namespace else {}),
                headers=bearer(token) if token else {},
                timeout=TIMEOUT_S,
            )
        except httpx.ReadTimeout:  # asked, and it answers once it has looked
            return
        except (httpx.TransportError, httpx.InvalidURL) as error:
            self._say(f"does not answer: {error}")
            return
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            self._say(f"answered {answer.status_code}; set {TOKEN} to a token that may get this Application")
        elif answer.status_code != httpx.codes.OK:
            self._say(f"answered {answer.status_code}; see release_adapter.argocd_url and argocd_application")

    def _say(self, what: str) -> None:
        log.warning("%s, asked to refresh %s, %s; it looks at Git within minutes", self.url, self.application, what)
