"""Medians, ratios, and whether a target is reached. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .model import METRICS, Outcome, Sample, Target

Medians = dict[str, Sample]


@dataclass(frozen=True)
class Verdict:
    metric: str
    #: What was asked for and what came, in words.
    wanted: str
    got: str
    reached: bool
    #: The figure that is compared with the limit.
    value: float


def medians(outcome: Outcome) -> Medians:
    """For every contender, the median of each metric; failures are added up, for one is one too many."""
    found: Medians = {}
    for label, samples in outcome.samples.items():
        names = [name for name in METRICS if samples and all(name in sample for sample in samples)]
        found[label] = {name: statistics.median(sample[name] for sample in samples) for name in names}
        found[label]["failed"] = sum(sample.get("failed", 0) for sample in samples)
    return found


def best(metric: str, labels: tuple[str, ...], figures: Medians) -> tuple[str, float] | None:
    """The contender among `labels` that is best at `metric`."""
    there = [(label, figures[label][metric]) for label in labels if metric in figures.get(label, {})]
    if not there:
        return None
    choose = max if METRICS[metric].rate else min
    return choose(there, key=lambda it: it[1])


def ratio(metric: str, ours: float, theirs: float) -> float:
    """How many times better ours is."""
    above, below = (ours, theirs) if METRICS[metric].rate else (theirs, ours)
    return above / below if below else float("inf")


def judge(target: Target, figures: Medians) -> Verdict | None:
    """None where a figure is missing."""
    ours = figures.get(target.of, {}).get(target.metric)
    metric = METRICS[target.metric]
    if ours is None:
        return None
    if target.form == "most":
        wanted = f"{metric.title} at most {target.limit:g} {metric.unit}"
        return Verdict(target.metric, wanted, f"{ours:.2f} {metric.unit}", ours <= target.limit, ours)
    peer = best(target.metric, target.against, figures)
    if peer is None:
        return None
    label, theirs = peer
    if target.form == "times":
        value = ratio(target.metric, ours, theirs)
        wanted = f"{metric.title}: {target.limit:.2f}x {label}"
        return Verdict(target.metric, wanted, f"{value:.2f}x", value >= target.limit, value)
    if target.form == "over":
        value = ours - theirs
        wanted = f"{metric.title} within {target.limit:g} {metric.unit} of {label}"
        return Verdict(target.metric, wanted, f"{value:+.2f} {metric.unit}", value <= target.limit, value)
    value = ours / theirs - 1
    wanted = f"{metric.title} within {target.limit:.0%} of {label}"
    return Verdict(target.metric, wanted, f"{value:+.1%}", value <= target.limit, value)


def verdicts(outcome: Outcome) -> list[Verdict]:
    figures = medians(outcome)
    found = (judge(target, figures) for target in outcome.scenario.targets)
    return [verdict for verdict in found if verdict]
