"""Compares what `systemctl list-unit-files` says of a root with what was collected from its unit files.

usage: units.py UNITS SYSCHAR

Prints how many agree; names those that do not, and exits with 1. Aliases and templates are no units of their own in system
characteristics, and what has no state is not compared.
"""

import sys
import xml.etree.ElementTree as ET


def collected(path):
    states = {}
    for item in ET.parse(path).iter():
        if item.tag.endswith("}systemdunitproperty_item"):
            texts = {child.tag.rsplit("}", 1)[1]: child.text or "" for child in item}
            states[texts["unit"]] = texts.get("value", "")
    return states


def main(units, syschar):
    ours = collected(syschar)
    differ, same = [], 0
    for line in open(units, encoding="utf-8"):
        name, state = line.split()[:2]
        if state in ("alias", "bad") or "@." in name:
            continue
        if ours.get(name) == state:
            same += 1
        else:
            differ.append(f"{name}: systemctl {state}, muster {ours.get(name, 'nothing')}")
    for line in differ:
        print(line, file=sys.stderr)
    print(f"states of units from their files: {same} of {same + len(differ)} as systemctl says")
    return 1 if differ or same == 0 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
