"""The page of the report on speed: who is faster where, who is wrong where, what we cost relative to the floor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from figures.pages import page
from verification.bench.asks import ASKS
from verification.report import Block, Picture, Table, Words


@page(name="speed", title="Speed beside the peers", records=("bench",))
def make(record: dict[str, Any]) -> list[Block]:
    """Tables from the records of `deqproof bench`."""
    results = list(record["benchmarks"].values())
    met = sum(ask.met for ask in ASKS)
    return [
        Words(_conditions(results)),
        Table(("benchmark", "size", "way", "at most", "reached", "met"), list(_wanted(results)),
              "Ratios that the project aims at, each within one run."),
        Words("**Who is faster where.** Fastest right answer at each size, and our fastest right one."),
        Table(("benchmark", "size", "fastest right", "ms", "our fastest right", "ms", "times the floor"),
              list(_fastest(results)), "Median times; the floor is defined under the pictures."),
        Words("**Who is wrong where.** Relative 2-norm error beyond the benchmark's tolerance. Phantom gradients, "
              "short unrolls and sampling are approximate by design; what is not marked so claims to be exact."),
        Table(("benchmark", "size", "way", "error", "by design"), list(_wrong(results)), "Ways that miss the truth."),
        Picture("bench-time"), Picture("bench-memory"),
        Words("\n\n".join(f"**{result['name']}** ({result['title']}; {result['dtype']}, {result['device']}, "
                          f"{result['threads']} threads, {result['clock']} time). {result['about']}"
                          for result in results)),
        Words(f"**What users of other libraries asked for.** Of {len(ASKS)} public requests found, {met} are met."),
        Table(("thread", "asked", "met", "shown by"),
              [(ask.thread, ask.asked, "yes" if ask.met else "no", ask.shown) for ask in ASKS]),
    ]


def _conditions(results: list[dict[str, Any]]) -> str:
    lines = []
    for run in {str(result["about_run"]): result["about_run"] for result in results}.values():
        names = ", ".join(result["name"] for result in results if result["about_run"] == run)
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        load = "" if not run.get("load") else f", load average {run['load'][0]:.1f} at the start"
        note = f" {run['note']}." if run.get("note") else ""
        lines.append(f"{names}: {run['date']}, commit {str(run['commit'])[:12]}, {run['processor']}, {run['cores']} "
                     f"cores{load}; {run['operations_per_second'] / 1e9:.0f} Gflop/s in matrix products and "
                     f"{run['bytes_per_second'] / 2**30:.0f} GiB/s measured in the run; {versions}.{note}")
    return "\n\n".join(lines)


def _wanted(results: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for result in results:
        for want in result["wanted"]:
            yield (result["name"], want["size"], want["name"], f"{want['most']:.3g} x {want['against']}",
                   want["ratio"], "yes" if want["met"] else "no")


def _fastest(results: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for result in results:
        for item in result["rounds"]:
            rows = [row for row in result["rows"] if row["size"] == item["size"] and row["right"] and row["median"]]
            if not rows:
                continue
            best = min(rows, key=lambda row: row["median"])
            ours = min((row for row in rows if row["role"] == "ours"), key=lambda row: row["median"], default=None)
            over = ours["median"] / item["floor"] if ours and item["floor"] else None
            yield (result["name"], item["size"], best["name"], best["median"] * 1e3, ours["name"] if ours else None,
                   ours["median"] * 1e3 if ours else None, over)


def _wrong(results: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for result in results:
        for row in result["rows"]:
            if row["problem"]:
                yield result["name"], row["size"], row["name"], row["problem"].splitlines()[0][:120], "raises"
            elif not row["right"]:
                yield (result["name"], row["size"], row["name"], f"{row['error']:.1e}",
                       "yes" if row.get("approximate") else "no")
