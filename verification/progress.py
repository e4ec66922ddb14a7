"""A progress bar on a terminal, a line a claim elsewhere."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from verification.result import ClaimResult
from verification.terminal import clip, mark
from verification.verdict import Verdict


class Progress:
    """Shows the claim at work, the elapsed time and the verdicts so far; a context manager."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream: TextIO = stream or sys.stderr
        self._live = self._stream.isatty()
        self._total = total
        self._counts: Counter[Verdict] = Counter()
        self._done = 0
        self._stop = threading.Event()
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        if self._live:
            self._bar = tqdm(total=self._total, unit="claim", file=self._stream, dynamic_ncols=True, leave=False,
                             bar_format="{desc} {bar:20} {n_fmt}/{total_fmt} {elapsed}{postfix}")
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.close()

    def start(self, title: str) -> None:
        """A claim is at work now."""
        if self._bar is not None:
            self._bar.set_description_str(clip(title, 44).ljust(44))

    def finish(self, result: ClaimResult) -> None:
        """A claim is done."""
        self._done += 1
        self._counts[result.verdict] += 1
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix_str(" ".join(f"{mark(verdict)} {count}" for verdict, count in self._counts.items()))
        else:
            flag = "  <- expected " + result.expected if result.deviates else ""
            print(f"[{self._done:>{len(str(self._total))}}/{self._total}] {mark(result.verdict)} {result.verdict:<10} "
                  f"{result.id:<9} {clip(result.title, 70)} ({result.seconds:.1f} s){flag}",
                  file=self._stream, flush=True)

    def _tick(self) -> None:
        # Long claims would otherwise freeze the elapsed time, and a frozen bar reads as a hang.
        while not self._stop.wait(1.0):
            if self._bar is not None:
                self._bar.refresh()
