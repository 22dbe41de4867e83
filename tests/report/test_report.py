import re
from html.parser import HTMLParser

import pytest

from ratchet.report import plots
from ratchet.report.report import Act, write_report
from ratchet.report.summary import summarise

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Strict(HTMLParser):
    """Collects text and ids, and fails on a tag that is closed wrongly or left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(html: str) -> Strict:
    page = Strict()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def html(acts, ledger, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "out" / "report.html"
    write_report(acts, ledger, path)
    return path.read_text()


def test_page_is_well_formed_and_ids_are_unique(html):
    page = parsed(html)
    assert len(page.ids) == len(set(page.ids)) > 0


def test_page_fetches_nothing_and_runs_nothing(html):
    page = parsed(html)
    assert not re.search(r"(https?:)?//\w", html)
    assert "script" not in page.tags and "link" not in page.tags
    addresses = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(address.startswith("#") for address in addresses)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_every_drop_has_its_reason_and_number(html, acts):
    rows = re.findall(r'<tr class="drop"><td colspan="3">(.*?)</td><td class="n">([\d,]+)</td>', html)
    flows = [flow for act in acts for manifest in act.manifests for flow in manifest.flows.values()]
    expected = [(reason.replace("_", " "), str(dropped)) for flow in flows for reason, dropped in flow.drops.items()]
    assert sorted(rows) == sorted(expected)


def test_users_text_is_escaped(html):
    assert "<script>" not in html
    assert "<script>alert('voted')</script>" in parsed(html).text


def test_same_acts_give_the_same_page(html, acts, ledger, tmp_path):
    write_report(acts, ledger, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == html


def test_charts_take_their_colours_from_the_page(html):
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(charts) == 2 * 6
    assert not [chart for chart in charts if re.search(r"#[0-9a-f]{6}\b", chart.replace("url(#", ""))]


def test_worse_slices_and_the_judges_agreement_are_shown(html):
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "language de 0.4 0.6 −0.200 −0.400 to +0.000 40 worse" in text
    assert "language fr 0.4 0.6 −0.200 40 too few to tell" in text
    assert "The judge, a-judge, compared with people on 90 held-out votes" in text
    assert "Agreement 80.0%, kappa 0.6 (at least 0.5)" in text
    assert "the first 40 4 4 the second 6 4 32" in text


def test_verdicts_of_before_slices_and_judges_are_still_shown(acts, tmp_path):
    old = acts[0].manifests[4]
    facts = {name: value for name, value in old.facts.items() if name not in ("slices", "judge")}
    write_report([Act("Old", [old.model_copy(update={"facts": facts})])], [], tmp_path / "report.html")
    assert "Offline evaluation" in parsed((tmp_path / "report.html").read_text()).text


def test_ledger_tells_every_record(html):
    assert [html.count(word) for word in ("requested</td>", "promoted</td>", "rolled back</td>")] == [1, 1, 1]
    assert "2023-11-14 22:13:20" in html


@pytest.mark.parametrize("num_steps", [0, 1, 3, 5])
def test_report_of_an_unfinished_run_covers_the_steps_that_ran(acts, tmp_path, num_steps):
    write_report([Act("Stopped", acts[0].manifests[:num_steps])], [], tmp_path / "report.html")
    page = parsed((tmp_path / "report.html").read_text())
    assert ("Offline evaluation" in page.text) == (num_steps >= 5)
    assert "Ledger" not in page.text


def test_refused_release_has_no_charts(acts, tmp_path):
    facts = {"outcome": "refused", "why": "the offline verdict is fail", "timeline": [], "log": [], "bound": 3.0}
    refused = acts[0].manifests[-1].model_copy(update={"facts": facts})
    write_report([Act("Refused", [refused])], [], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "<svg" not in html
    assert "It was not released: the offline verdict is fail." in html


def test_no_acts_make_an_empty_page(tmp_path):
    write_report([], [], tmp_path / "report.html")
    parsed((tmp_path / "report.html").read_text())


def test_summary_says_what_happened_and_why(acts):
    summary = summarise({manifest.step: manifest for manifest in acts[1].manifests})
    assert summary == (
        "801 of 987 valid votes shaped at least one training row; "
        "the most common reason to drop one was “superseded” (97). "
        "An adapter was trained on 212 answers to imitate and 642 pairs of a better and a worse answer "
        "(preference loss 0.690 at first, 0.355 at last). "
        "Offline, on votes held out from training, it was found no worse than the incumbent: "
        "all 4 required checks passed. "
        "It was rolled back; the champion serves as before: the votes show harm. "
        "In 78 seconds of canary, 8 of 40 votes on the candidate were up, against 94 of 156 on the champion."
    )


def test_evidence_of_an_older_release_is_drawn_as_that_of_a_new_one() -> None:
    new = [{"t": float(t), "log_e": {"harm": 0.1 * t, "non_inferiority": 0.5 * t}} for t in range(5)]
    old = [{**row, "log_e": {"harm": row["log_e"]["harm"], "no_worse": row["log_e"]["non_inferiority"]}} for row in new]
    assert plots.evidence(old, 3.5, "canary") == plots.evidence(new, 3.5, "canary")
    assert plots.evidence(old, 3.5, "canary") != plots.evidence(new[:1] * 5, 3.5, "canary")
