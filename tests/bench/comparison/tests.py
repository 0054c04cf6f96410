"""Tests of the pure parts: what the tools print is read rightly, targets are judged rightly, configurations are told apart."""

from __future__ import annotations

import unittest
import xml.dom.minidom
from pathlib import Path

from . import charts, judge, report, scenarios, tools
from .model import METRICS, Contender, Outcome, Scenario, Setup, Target
from .page import page
from .peers import Place, miwid, nginx

_WRK = """
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.01ms    1.00ms  10.00ms   90.00%
  Latency Distribution
     50%  336.00us
     75%  400.00us
     90%    1.50ms
     99%    2.00s
  4000 requests in 2.00s, 5.00MB read
  Socket errors: connect 0, read 1, write 2, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:   2000.50
"""

_H2LOAD = """
finished in 2.00s, 1500.50 req/s, 2.00MB/s
requests: 3001 total, 3100 started, 3001 done, 3001 succeeded, 0 failed, 0 errored, 1 timeout
status codes: 2999 2xx, 0 3xx, 2 4xx, 0 5xx
"""

_PLACE = Place(Path("/d"), Path("/w"), Path("/c"), Path("/k"), 1, 2, "127.0.0.1:3")


def _outcome(**figures: list[float]) -> Outcome:
    contenders = tuple(Contender(label, "miwid", Setup()) for label in figures)
    samples = {label: [{"cpu_us": value, "rps": 1e6 / value, "failed": 0} for value in values] for label, values in figures.items()}
    scenario = Scenario("one", "one & only", "throughput", contenders, targets=(Target("cpu_us", "times", 1.5, ("nginx", "other")),))
    return Outcome(scenario, samples, ["<note>"])


class Reading(unittest.TestCase):
    def test_wrk_tells_requests_failures_and_percentiles_in_microseconds(self) -> None:
        self.assertEqual(
            tools.parse_wrk(_WRK),
            {"requests": 4000, "rps": 2000.5, "failed": 10, "p50_us": 336.0, "p90_us": 1500.0, "p99_us": 2e6},
        )

    def test_wrk_that_says_nothing_is_an_error(self) -> None:
        with self.assertRaises(ValueError):
            tools.parse_wrk("unable to connect")

    def test_h2load_counts_wrong_statuses_and_timeouts_as_failures(self) -> None:
        self.assertEqual(tools.parse_h2load(_H2LOAD), {"requests": 3001, "rps": 1500.5, "failed": 3})

    def test_own_load_tells_json(self) -> None:
        told = tools.parse_own('{"requests": 10, "failed": 1, "seconds": 2.0, "p50_us": 3.5}\n')
        self.assertEqual(told, {"requests": 10, "failed": 1, "p50_us": 3.5, "rps": 5.0})


class Judging(unittest.TestCase):
    def test_the_best_peer_counts_and_medians_are_compared(self) -> None:
        outcome = _outcome(miwid=[4.0, 90.0, 3.9], nginx=[8.0, 8.0, 8.0], other=[6.0, 6.0, 6.0])
        (verdict,) = judge.verdicts(outcome)
        self.assertEqual((verdict.value, verdict.reached, verdict.got), (1.5, True, "1.50x"))
        self.assertIn("other", verdict.wanted)

    def test_for_rates_more_is_better(self) -> None:
        self.assertEqual(judge.ratio("rps", 300.0, 200.0), 1.5)
        self.assertEqual(judge.ratio("cpu_us", 2.0, 3.0), 1.5)

    def test_limits_of_every_form(self) -> None:
        figures = {"miwid": {"cpu_us": 1.04, "first_byte_ms": 12.0}, "a": {"cpu_us": 1.0, "first_byte_ms": 11.0}}
        for target, reached in (
            (Target("cpu_us", "most", 1.05), True),
            (Target("cpu_us", "most", 1.03), False),
            (Target("cpu_us", "share", 0.05, ("a",)), True),
            (Target("cpu_us", "share", 0.03, ("a",)), False),
            (Target("first_byte_ms", "over", 1.5, ("a",)), True),
            (Target("first_byte_ms", "over", 0.5, ("a",)), False),
        ):
            verdict = judge.judge(target, figures)
            self.assertEqual(verdict and verdict.reached, reached, target)

    def test_without_figures_nothing_is_judged(self) -> None:
        self.assertEqual(judge.verdicts(_outcome(miwid=[1.0])), [])
        self.assertEqual(judge.verdicts(_outcome(nginx=[1.0])), [])


class Telling(unittest.TestCase):
    def test_tables_charts_and_the_page_hold_every_contender(self) -> None:
        entry = report.entry(_outcome(miwid=[4.0], nginx=[8.0]))
        document = {
            "machine": {"cpu": "c", "cores": 2, "memory_mb": 1, "kernel": "k", "descriptors": 1},
            "build": "release", "begun": "now", "short": False, "rounds": 1, "seconds": 1.0, "scenarios": [entry],
        }
        for text in (report.terminal(entry), report.markdown(document), page(document), charts.chart(entry, "cpu_us")):
            for word in ("miwid", "nginx"):
                self.assertIn(word, text)
        for drawing in charts.charts(entry).values():
            xml.dom.minidom.parseString(drawing)
        self.assertIn("&lt;note&gt;", page(document), "text is never markup")
        self.assertIn("1 of 1 targets reached", report.summary(document))


class Configuring(unittest.TestCase):
    def test_every_setting_changes_the_configuration(self) -> None:
        variants = [
            Setup(), Setup(tls=True), Setup(access_log=True), Setup(upstream="files"), Setup(compression="siblings"),
            Setup(compression="dynamic"), Setup(sites=3), Setup(workers=2), Setup(connections=9000),
        ]
        for write in (miwid.configuration, lambda setup, place: nginx.configuration(setup, place, http2_line=True)):
            texts = {write(setup, _PLACE) for setup in variants}
            self.assertEqual(len(texts), len(variants))

    def test_the_site_that_is_asked_for_is_one_of_those_configured(self) -> None:
        for count in (1, 2, 100):
            setup = Setup(sites=count)
            self.assertIn(setup.host, miwid.names(setup))


class Choosing(unittest.TestCase):
    def test_names_are_unique_and_targets_speak_of_contenders_and_metrics_that_exist(self) -> None:
        names = [it.name for it in scenarios.ALL]
        self.assertEqual(len(names), len(set(names)))
        for scenario in scenarios.ALL:
            labels = {it.label for it in scenario.contenders}
            for target in scenario.targets:
                self.assertIn(target.metric, METRICS)
                self.assertIn(target.of, labels, scenario.name)
                self.assertTrue(target.form == "most" or labels & set(target.against), scenario.name)

    def test_the_short_form_has_every_kind_and_every_tool(self) -> None:
        short = [scenarios.shortened(it) for it in scenarios.ALL if it.short]
        self.assertEqual({it.kind for it in short}, {it.kind for it in scenarios.ALL})
        self.assertEqual({it.load.tool for it in short}, {it.load.tool for it in scenarios.ALL})


if __name__ == "__main__":
    unittest.main()
