"""Runs the probes that are named, in this process, and prints a line of JSON before and after each."""

import json
import sys

from deq.interop.doctor.probes import measure

if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"begins": name}), flush=True)
        print(json.dumps(measure(name)), flush=True)
