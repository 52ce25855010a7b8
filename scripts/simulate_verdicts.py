#!/usr/bin/env python3
"""Simulate how often the verdict is wrong and how often it detects a real difference, with many kinds of noise.

usage: simulate_verdicts.py [--runs 2000] [--seed 1] [--true 0,0.005,0.01,0.03] [--noise 0.01,0.001] [--rounds 54] [--json]

Simulates rounds of a baseline, its twin, a candidate and one more variant in the order in which a capture times them. It judges
them as a capture does: after each look (moeprof.stats.verdicts.LOOKS up to --rounds) it stops if the verdict is not UNCLEAR.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from moeprof.stats import estimates
from moeprof.stats import verdict as verdicts
from moeprof.stats.verdict import FALSE_ALARMS, LOOKS

Times = npt.NDArray[np.float64]  # log times [run, round, process]; process: baseline, twin, candidate, another variant
World = Callable[[np.random.Generator, Times, Times, float], Times]  # (rng, noise, clock 0..1 of each, noise level)
PROCESSES, CANDIDATE = 4, 2
WORDS = ("FASTER", "SLOWER", "SAME", "UNCLEAR")


def series(rng: np.random.Generator, shape: tuple[int, ...], correlation: float, level: float) -> Times:
    """Noise of the first order along axis 1: each round ``alike`` to the one before it, of standard deviation ``level``."""
    noise = rng.normal(0, level, shape)
    for index in range(1, shape[1]):
        noise[:, index] = correlation * noise[:, index - 1] + np.sqrt(1 - correlation**2) * noise[:, index]
    return noise


def own(correlation: float) -> World:
    """Each process has independent slow noise, which no pairing cancels."""
    return lambda rng, noise, clock, level: series(rng, noise.shape, correlation, level)


def process(offset: float) -> World:
    """Each process is faster or slower by an independent constant, of standard deviation ``offset``."""
    return lambda rng, noise, clock, level: noise + rng.normal(0, offset, (len(noise), 1, PROCESSES))


def one_sided(rng: np.random.Generator, noise: Times, clock: Times, level: float) -> Times:
    """One phase in ten is held up: 2 % and an exponential tail of 15 %."""
    return noise + np.where(rng.random(noise.shape) < 0.1, 0.02 + rng.exponential(0.15, noise.shape), 0)


WORLDS: dict[str, World] = {
    "independent": lambda rng, noise, clock, level: noise,
    "drift of 5 %": lambda rng, noise, clock, level: noise + 0.05 * clock,
    "step of 5 %": lambda rng, noise, clock, level: noise + 0.05 * (clock > rng.random((len(noise), 1, 1))),
    "a spell of 10 %": lambda rng, noise, clock, level: (
        noise + 0.1 * (np.abs(clock - rng.random((len(noise), 1, 1))) < 0.08)
    ),
    "one-sided outliers": one_sided,
    "heavy tail": lambda rng, noise, clock, level: noise + level * rng.pareto(1.5, noise.shape),
    "shared, alike 0.9": lambda rng, noise, clock, level: noise + series(rng, noise.shape[:2], 0.9, 0.02)[..., None],
    "own, alike 0.5": own(0.5),
    "own, alike 0.8": own(0.8),
    "two modes": lambda rng, noise, clock, level: noise + 0.3 * (rng.random(noise.shape) < 0.5),
    "own, alike 0.9": own(0.9),
    "processes 0.2 %": process(0.002),
    "processes 0.5 %": process(0.005),
}
BEYOND = ("own, alike 0.9", "processes 0.5 %")  # reported, not guaranteed: docs/reference/verdict.md


def simulate(world: str, runs: int, true: float, level: float, rounds: int, seed: int) -> Times:
    """Log times of ``runs`` captures in which the candidate is ``true`` faster: shuffled orders, every second one reversed."""
    rng = np.random.default_rng(seed)
    order = rng.random((runs, (rounds + 1) // 2, PROCESSES)).argsort(axis=-1)
    place = np.stack([order, PROCESSES - 1 - order], axis=2).reshape(runs, -1, PROCESSES)[:, :rounds]
    clock = (np.arange(rounds)[:, None] * PROCESSES + place) / (rounds * PROCESSES)
    log_times = WORLDS[world](rng, rng.normal(0, level, clock.shape), clock, level)
    log_times[..., CANDIDATE] -= np.log1p(true)
    return log_times


def judge(times: Times, looks: tuple[int, ...]) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """The word of each run, and after how many rounds."""
    words = np.full(len(times), "UNCLEAR", dtype="<U8")
    ended = np.full(len(times), looks[-1])
    for count in looks:
        open_ = np.flatnonzero(words == "UNCLEAR")
        base, twin, candidate = (times[open_, :count, column] for column in (0, 1, CANDIDATE))
        estimate = estimates.compare(base, candidate, twin, True, FALSE_ALARMS / len(LOOKS))
        assert estimate is not None and estimate.noise is not None
        now = verdicts.word_of(estimate.low, estimate.high, np.expm1(estimate.noise))
        words[open_], ended[open_[now != "UNCLEAR"]] = now, count
    return words, ended


def looks_until(rounds: int) -> tuple[int, ...]:
    """The looks of a capture whose budget ends after ``rounds`` rounds."""
    return (*(look for look in LOOKS if look < rounds), rounds)


def shares(
    world: str, runs: int, true: float, level: float, rounds: int = LOOKS[-1], seed: int = 1
) -> dict[str, float]:
    """The share of each word, and the mean number of rounds."""
    words, ended = judge(simulate(world, runs, true, level, rounds, seed), looks_until(rounds))
    return {word: float(np.mean(words == word)) for word in WORDS} | {"rounds": float(ended.mean())}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--true", default="0,0.005,0.01,0.03")
    parser.add_argument("--noise", default="0.01,0.001")
    parser.add_argument("--rounds", type=int, default=LOOKS[-1])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [
        {"world": world, "true": true, "noise": level, **shares(world, args.runs, true, level, args.rounds, args.seed)}
        for true in map(float, args.true.split(","))
        for level in map(float, args.noise.split(","))
        for world in WORLDS
    ]
    if args.json:
        print(json.dumps({"schema_version": 1, "runs": args.runs, "rows": rows}, indent=1))
        return 0
    print(f"{'machine':20} {'noise':>6} {'true':>6}" + "".join(f"{word:>9}" for word in (*WORDS, "rounds")))
    for row in rows:
        percentages = "".join(f"{row[word]:>9.2%}" for word in WORDS)
        print(f"{row['world']:20} {row['noise']:>6.1%} {row['true']:>6.1%}{percentages}{row['rounds']:>9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
