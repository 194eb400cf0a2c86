#!/usr/bin/env python3
"""Runs the simulations that docs/verification.md shows figures of, and prints the figures again.

    cargo build --release -p quorate-grid --example sim
    tools/verification_tables.py [--sim target/release/examples/sim] [--jobs 2] [--json FILE] [TABLE...]

Without a TABLE all of them are run, some 1,800 simulations. Runs are a function of their options, so what a table shows changes
with what the grid decides and with nothing else: run it before and after, and compare.
"""

import argparse
import concurrent.futures
import json
import math
import subprocess
import sys

ADVERSARIES = """lazy random-liar build-then-burst rare-cheat collude-when-safe false-accuser confirming-auditor answer-copier
whitewasher sybil-flood-one-subnet sybil-flood value-asymmetric withholder seed-grinder flaky-hardware nondeterministic-module
version-skew""".split()
BUILDS = ["build-then-burst:2500", "build-then-burst:5000", "build-then-burst:20000"]
SEEDS = range(1, 9)
LONG = "--hosts 20 --tasks 250000"

# Name of a table: options, adversaries, seeds.
TABLES = {
    "newcomers": ("--hosts 300 --tasks 50000 --liars 0.2 --stake 0", ADVERSARIES, SEEDS),
    "established": ("--hosts 300 --tasks 50000 --liars 0.2 --established --stake 0", ADVERSARIES, SEEDS),
    "long": (f"{LONG} --liars 0.2 --stake 0", ADVERSARIES + BUILDS, SEEDS),
    "long-staked": (f"{LONG} --liars 0.2", BUILDS[:2] + ["collude-when-safe", "value-asymmetric", "rare-cheat"], SEEDS),
    "honest": (f"{LONG} --liars 0 --stake 0", ["rare-cheat"], SEEDS),
    "honest-staked": (f"{LONG} --liars 0", ["rare-cheat"], SEEDS),
    "honest-newcomers": (f"{LONG} --liars 0 --newcomers 0.1 --stake 0", ["rare-cheat"], SEEDS),
    "honest-newcomers-staked": (f"{LONG} --liars 0 --newcomers 0.1", ["rare-cheat"], SEEDS),
    "honest-25000": (f"{LONG} --liars 0 --shown 25000 --stake 0", ["rare-cheat"], SEEDS),
    "honest-2500": (f"{LONG} --liars 0 --shown 2500 --stake 0", ["rare-cheat"], SEEDS),
    "quorum": ("--hosts 100 --tasks 30000 --liars 0.2 --policy quorum:2 --established", ADVERSARIES, SEEDS),
    "balance-newcomers": ("--hosts 100 --tasks 50000 --liars 0.2", ADVERSARIES, SEEDS),
    "balance": ("--hosts 100 --tasks 50000 --liars 0.2 --established", ADVERSARIES, SEEDS),
    "balance-short": ("--hosts 60 --tasks 10000 --liars 0.2 --established", ADVERSARIES, SEEDS),
    "whole": ("--hosts 60 --tasks 30000 --liars 0.2 --established", ADVERSARIES, SEEDS),
    "steps": ("--hosts 60 --tasks 30000 --liars 0.2 --established --steps 16", ADVERSARIES, SEEDS),
    "whole-newcomers": ("--hosts 60 --tasks 30000 --liars 0.2", ADVERSARIES, SEEDS),
    "steps-newcomers": ("--hosts 60 --tasks 30000 --liars 0.2 --steps 16", ADVERSARIES, SEEDS),
    "dear-none": ("--hosts 100 --tasks 50000 --liars 0.2 --established", ["value-asymmetric"], SEEDS),
    "dear": ("--hosts 100 --tasks 50000 --liars 0.2 --established --dear 20", ["value-asymmetric"], range(1, 25)),
    "dear-steps": (
        "--hosts 100 --tasks 50000 --liars 0.2 --established --dear 20 --steps 16", ["value-asymmetric"], range(1, 25),
    ),
    "dear-long": ("--hosts 20 --tasks 50000 --liars 0.2 --established --dear 20", ["value-asymmetric"], SEEDS),
    "dear-long-steps": (
        "--hosts 20 --tasks 50000 --liars 0.2 --established --dear 20 --steps 16", ["value-asymmetric"], SEEDS,
    ),
    "dear-newcomers": (f"{LONG} --liars 0.2 --dear 20", ["value-asymmetric"], SEEDS),
}
FEW_REFEREES = "--hosts 3000 --tasks 60000 --job-tasks 3000 --liars 0.2 --established --stake 0 --no-re-entry"
for name, steps in [("referees", ""), ("referees-steps", " --steps 16")]:
    TABLES[name] = (FEW_REFEREES + steps, ["random-liar", "sybil-flood"], range(1, 4))
LONG_TASKS = "--hosts 100 --tasks 2000 --job-tasks 100 --task-ms 300000 --steps 64 --liars 0 --trouble usual"
for name, more in [
    ("lost-idle", " --operators 20 --load 0.3"),
    ("lost", " --operators 20"),
    ("lost-vouched", " --operators 20 --vouched 20 --stake 0"),
    ("lost-alone", ""),
]:
    TABLES[name] = (LONG_TASKS + more, ["rare-cheat"], SEEDS)
    TABLES[name + "-unkept"] = (LONG_TASKS + more + " --checkpoint-ms 0", ["rare-cheat"], SEEDS)


def simulate(sim, options, adversary, seed):
    """One run's report. A run in which an invariant breaks ends all of it."""
    command = [sim, *options.split(), "--adversary", adversary, "--seed", str(seed), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def bound_95(events, of):
    """The share under which so few events have a chance of 5 %, as the simulator computes it."""
    least, most = events, events + 10 + 4 * math.sqrt(events)
    for _ in range(60):
        middle = (least + most) / 2
        term = chance = math.exp(-middle) if middle < 700 else 0.0
        for event in range(1, events + 1):
            term = math.exp(-middle + event * math.log(middle) - math.lgamma(event + 1))
            chance += term
        least, most = (middle, most) if chance > 0.05 else (least, middle)
    return most / of if of else 1.0


def balance(report):
    purse = report["purse"]
    return purse["lies_paid"] + purse["rewarded"] - purse["returned"] - purse["slashed"]


def row(reports):
    """What the reports of one adversary come to."""
    total = lambda *path: sum(dig(report, path) for report in reports)
    wrong, of, accepted = total("wrong", "events"), total("wrong", "of"), total("accepted")
    segments = max(dig(report, ("stepped", "segments")) for report in reports) or 1
    trials = lambda name: total("stepped", "trials", name)
    ordered = sum(sum(report["executions"].values()) for report in reports)
    in_trials = (trials("segments_for_states") + trials("segments_refereed")) / segments
    balances = sorted(balance(report) for report in reports)
    figures = {
        "wrong": f"{wrong} of {of}",
        "share": f"{wrong / max(of, 1):.1e}",
        "95 %": f"{bound_95(wrong, of):.1e}" if wrong < 20_000 else "",
        "worst": f"{max(report['wrong']['events'] / max(report['wrong']['of'], 1) for report in reports):.1e}",
        "cost": f"{(ordered + in_trials) / max(accepted, 1):.3f}",
        "balance": f"{balances[-1]} ({sum(balance > 0 for balance in balances)} above 0, sum {sum(balances)})",
        "lies paid": total("purse", "lies_paid"),
        "returned": total("purse", "returned"),
        "slashed": total("purse", "slashed"),
        "honest slashed": total("purse", "honest_slashed"),
        "disputes": f"{total('executions', 'disputes') + trials('segments_refereed') / segments:.0f}",
        "caught": f"{total('ejection', 'caught')} of {total('ejection', 'lied')}",
        "after": "/".join(str(report["ejection"]["after_ms"]["p50"]) for report in reports[:3]),
        "p99": f"{total('accepted_after_ms', 'p99') / len(reports):.0f}",
    }
    if trials("begun"):
        asked, given = trials("states_asked"), trials("states_given")
        figures["trials"] = f"{trials('settled')} of {trials('begun')}, {asked - given} of {asked} in vain"
        figures["a trial"] = f"{in_trials / trials('begun'):.2f}"
    if "stepped" in reports[0]:
        figures["faults"] = total("faults")
        figures["went on"] = total("stepped", "checkpoints", "resumed")
        figures["saved"] = f"{total('stepped', 'checkpoints', 'segments_saved') / segments:.0f}"
    return figures


def dig(report, path):
    for name in path:
        report = report.get(name, {})
    return report or 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sim", default="target/release/examples/sim", help="the simulator")
    parser.add_argument("--jobs", type=int, default=2, help="simulations at a time")
    parser.add_argument("--json", help="where all figures go")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    asked = parser.parse_args()
    unknown = set(asked.tables) - set(TABLES)
    if unknown:
        parser.error(f"no table is called {', '.join(sorted(unknown))}: there are {', '.join(TABLES)}")
    shown = {}
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        runs = {}
        for name in asked.tables or TABLES:
            options, adversaries, seeds = TABLES[name]
            runs[name] = {
                adversary: [pool.submit(simulate, asked.sim, options, adversary, seed) for seed in seeds]
                for adversary in adversaries
            }
        try:
            for name, of in runs.items():
                print(f"\n## {name}: sim {TABLES[name][0]}", flush=True)
                shown[name] = {}
                for adversary, futures in of.items():
                    figures = shown[name][adversary] = row([future.result() for future in futures])
                    print(f"{adversary:<24}", "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
        except RuntimeError as broken:
            pool.shutdown(wait=False, cancel_futures=True)
            sys.exit(str(broken))
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            json.dump(shown, file, indent=1)


if __name__ == "__main__":
    main()
