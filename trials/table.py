"""Makes one table in Markdown of what the programs of the trials said: `table.py FOLDER PROXY…`.

Each program leaves FOLDER/PROXY-PROGRAM.json, one JSON object a line. The table has a row for each scenario and a column for
each proxy; a cell says what was amiss, which is nothing where all that had to hold did. Of several rounds it tells the worst, and
how many there were of each kind.
"""

import json
import sys
from pathlib import Path

TITLES = {
    "cancelled": "1,200 open calls cancelled at once",
    "late-1": "1,200 calls cancelled at once, one late DATA frame each",
    "late-103": "100 calls cancelled, 103 late DATA frames each",
    "late-forgotten": "1,200 calls cancelled at once, one late DATA frame each after two seconds",
    "parked": "200 calls where 10 are taken at once; those that wait are cancelled",
    "empty": "10,000 answers with an empty DATA frame",
    "padded-empty": "10,000 answers with a DATA frame of padding alone",
    "goaway-half": "GOAWAY under 100 open calls, half of them not processed",
    "goaway-0": "GOAWAY(NO_ERROR, 0) under 100 open calls",
    "refused": "2,000 calls refused once each (REFUSED_STREAM)",
    "mass-reset": "1,000 open calls reset at once (INTERNAL_ERROR)",
}


def endings(counts: dict) -> str:
    """`3 status 13, 1 cut`, without those that ended well."""
    bad = [f"{count:,} {ending}" for ending, count in counts.items() if ending != "status 0"]
    return ", ".join(bad)


def total(counts: dict) -> int:
    """How many calls did not end well."""
    return sum(count for ending, count in counts.items() if ending != "status 0")


def survived(lines: list[dict]) -> str:
    """A cell of `survive`."""
    amiss = [line for line in lines if not line["clean"]]
    if not amiss:
        return "nothing amiss"
    worst = max(amiss, key=lambda line: total(line["innocents"]) + total(line["subjects"]))
    said = []
    for text in worst["amiss"]:
        detail = ""
        if "innocent" in text:
            detail = endings(worst["innocents"])
        elif "subjects" in text:
            detail = endings(worst["subjects"])
        said.append(f"{text} ({detail})" if detail else text)
    cell = "; ".join(said)
    return cell if len(amiss) == len(lines) else f"in {len(amiss)} of {len(lines)} rounds: {cell}"


def rounded(ratio: float) -> str:
    """With the digits that mean something: two behind the point of a small one, none of a large one."""
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def read(lines: list[dict]) -> str:
    """A cell of `readers`."""
    line = lines[-1]
    said = [] if line["held"] else [line["faults"]]
    # Nothing was measured where no call came back.
    calls = f"small calls {rounded(line['ratio'])} times as long" if line["ratio"] else "no small call came back"
    said.append(f"{calls}, {line['blocked']:,} blocked, {line['resident_mib']} MiB")
    return ": ".join(said)


def row_of(line: dict) -> str:
    """What was done."""
    if line["trial"] == "readers":
        size = line["message_bytes"]
        pour = f"never read answers in messages of {size:,} B" if line["variant"] == "messages" else "send a byte a second"
        return f"{line['readers']:,} clients that {pour}, small calls beside them"
    return TITLES.get(line["scenario"], line["scenario"])


def main() -> None:
    folder, proxies = Path(sys.argv[1]), sys.argv[2:]
    rows: dict[str, dict[str, list[dict]]] = {}
    for proxy in proxies:
        # `survive` first.
        for path in sorted(folder.glob(f"{proxy}-*.json"), reverse=True):
            for text in path.read_text().splitlines():
                line = json.loads(text)
                rows.setdefault(row_of(line), {}).setdefault(proxy, []).append(line)
    print("| |", " | ".join(proxies), "|")
    print("|---" * (len(proxies) + 1) + "|")
    for row, cells in rows.items():
        print(f"| {row} |", " | ".join(cell(cells.get(proxy)) for proxy in proxies), "|")


def cell(lines: list[dict] | None) -> str:
    """What those rounds come to."""
    if not lines:
        return "–"
    return survived(lines) if lines[0]["trial"] == "survive" else read(lines)


main()
