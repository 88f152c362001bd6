"""Compares the verdicts of a whole installation with those of `oscap`, and says what its collector took.

usage: system.py DIRECTORY THEIRS          the directory in which system.sh ran; result data stream (ARF) of oscap

Exit 1 where a verdict differs, or where there are none.
"""

import json
import sqlite3
import sys

import compare


def main():
    directory, theirs = sys.argv[1:]
    with open(directory + "/system.json", encoding="utf-8") as file:
        ours = {each["rule"]: each["verdict"] for results in json.load(file)["results"] for each in results}
    theirs = compare.rules(theirs)
    differ = [(rule, theirs.get(rule), verdict) for rule, verdict in sorted(ours.items()) if theirs.get(rule) != verdict]
    for rule, their, our in differ:
        print(f"  {rule}: oscap {their}, the installation {our}")
    print(f"  {len(ours) - len(differ)} of {len(ours)} verdicts of the installation are those of oscap")
    with open(directory + "/system.cost", encoding="utf-8") as file:
        idle, most = (int(kib) / 1024 for kib in file.read().split())
    kept = sqlite3.connect(f"file:{directory}/repository/repository.db?mode=ro", uri=True)
    # As they came over the bus, but for the few bytes around what is compressed.
    sizes = kept.execute("SELECT length(bytes) FROM report WHERE kind = 'collection-results' ORDER BY received, hash").fetchall()
    with open(directory + "/system.changes", encoding="utf-8") as file:
        waits = sorted(int(line) for line in file)
    changes = sorted(size for (size,) in sizes[-len(waits):])
    print(f"  its collector: {idle:.1f} MiB idle, {most:.1f} MiB at most; {sizes[0][0] / 1000:.1f} kB for the first report")
    print(f"  {len(waits)} changes: {changes[-1] / 1000:.1f} kB at most; verdicts to be read after {waits[len(waits) // 2]} ms, {waits[-1]} ms at most")
    return 1 if differ or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
