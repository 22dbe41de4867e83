"""A pytest plugin: in CI, a skip that is not on the list fails the run, since a skipped test tests nothing.

Anywhere else a skip is what it always was. Set CI=true to see what CI sees.
"""

import os
import re
from collections.abc import Iterator

import pytest

ALLOWED = {
    r"runs in (Airflow's|the work) environment": "`make test` runs those in the other environment",
    r"beside the checkout: .* is absent": "recordings, data and schemas that are kept outside of the repository",
}


def unexpected(reports: list[pytest.TestReport | pytest.CollectReport]) -> Iterator[str]:
    """Place and reason of every skip that no entry of `ALLOWED` explains."""
    for report in reports:
        path, line, reason = report.longrepr  # type: ignore[misc] # of a skip: a triple
        if not any(re.search(pattern, reason) for pattern in ALLOWED):
            yield f"{path}:{line}: {reason}"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None or hasattr(session.config, "workerinput"):
        return
    found = sorted(set(unexpected(reporter.stats.get("skipped", []))))
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.section("skips that CI does not allow (tests/support/strict_skips.py)", red=True)
        for line in found:
            reporter.write_line(line)
