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
    count, size = kept.execute("SELECT count(*), sum(length(bytes)) FROM report WHERE kind = 'collection-results'").fetchone()
    print(f"  its collector: {idle:.1f} MiB idle, {most:.1f} MiB at most; {count} reports, {size / 1000:.0f} kB compressed")
    return 1 if differ or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
