"""An aligned table of a benchmark's record for the terminal."""

from __future__ import annotations

from typing import Any


def text_table(record: dict[str, Any]) -> str:
    """One line a contestant and size: median with quartiles in ms, ratio, error, times over the floor, peak memory."""
    floors = {item["size"]: item.get("floor") for item in record["rounds"]}
    header = (record["size"].split()[-1], "who", "median ms", "quartiles", f"/ {record['baseline']}", "error", "right",
              "x floor", "peak MiB")
    lines = [header]
    for row in record["rows"]:
        if row["problem"]:
            lines.append((str(row["size"]), row["name"], row["problem"].splitlines()[0][:60], "", "", "", "", "", ""))
            continue
        floor = floors.get(row["size"])
        peak = row["peak_bytes"]
        verdict = "yes" if row["right"] else ("approx" if row.get("approximate") else "NO")
        lines.append((str(row["size"]), row["name"], f"{row['median'] * 1e3:.4g}",
                      f"{row['low'] * 1e3:.4g}-{row['high'] * 1e3:.4g}",
                      f"{row['ratio']:.3g}" if row["ratio"] else "", f"{row['error']:.1e}", verdict,
                      f"{row['median'] / floor:.3g}" if floor else "", f"{peak / 2**20:.3g}" if peak else ""))
    widths = [max(len(line[index]) for line in lines if not _is_problem(line) or index < 2)
              for index in range(len(header))]
    text = [f"{record['name']}: {record['title']}  ({record['dtype']}, {record['device']}, "
            f"{record['threads']} threads, {record['clock']} time)"]
    for line in lines:
        cells = [cell.ljust(width) if index == 1 else cell.rjust(width)
                 for index, (cell, width) in enumerate(zip(line, widths, strict=True))]
        text.append("  " + "  ".join(cells).rstrip())
    absent = {name: reason for item in record["rounds"] for name, reason in item.get("absent", {}).items()}
    text += [f"  absent: {name} ({reason})" for name, reason in absent.items()]
    for want in record["wanted"]:
        text.append(f"  wanted: {want['name']} <= {want['most']:g} x {want['against']} at {want['size']}: "
                    f"{want['ratio']:.3g}, {'met' if want['met'] else 'NOT MET'}")
    return "\n".join(text)


def _is_problem(line: tuple[str, ...]) -> bool:
    return line[3] == "" and line[5] == "" and line[1] != "who"
