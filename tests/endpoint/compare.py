"""Compares what two SCAP engines say of one endpoint, rule by rule or object by object.

usage: compare.py rules THEIRS OURS        result data streams (ARF) or XCCDF results
       compare.py objects THEIRS OURS      OVAL system characteristics

Prints a line for each difference that is not explained below, then how many agree. Exit 1 where a difference is not explained.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter

# Differences of objects that docs/oscap-differences.md explains, and what changes by itself from one run to the next.
VOLATILE = {"a_time", "c_time", "pid", "space_left", "space_used"}
# The datatype of a package's version, and the name of the variable that an item of independent:variable is about.
EXPLAINED = {("evr", "evr_string"), ("evr", "debian_evr_string")}


def local(tag):
    return tag.rsplit("}", 1)[-1]


def rules(path):
    """Rule -> result, of the last TestResult in the file."""
    results = {}
    for event, element in ET.iterparse(path, events=("start", "end")):
        name = local(element.tag)
        if event == "start" and name == "TestResult":
            results = {}
        elif event == "end" and name == "rule-result":
            found = [child.text for child in element if local(child.tag) == "result"]
            results[element.get("idref")] = (found[0] or "").strip() if found else ""
    return results


def objects(path):
    """Object -> flag and items."""
    references, items = {}, {}
    for _, element in ET.iterparse(path):
        name = local(element.tag)
        if name == "object" and element.get("flag"):
            found = [child.get("item_ref") for child in element if local(child.tag) == "reference"]
            references[element.get("id")] = (element.get("flag"), found)
        elif name.endswith("_item"):
            items[element.get("id")] = (name, element.get("status", "exists"), entities(element, name))
    return {key: (flag, Counter(items[item] for item in found)) for key, (flag, found) in references.items()}


def unbound(path):
    """Objects that Muster says ask with an external variable that has no value."""
    found = set()
    for _, element in ET.iterparse(path):
        words = [child.text or "" for child in element if local(child.tag) == "message"]
        if local(element.tag) == "object" and any(text.startswith("the external variable") for text in words):
            found.add(element.get("id"))
    return found


def entities(element, item):
    found = []
    for child in element:
        name = local(child.tag)
        datatype = child.get("datatype", "string")
        if name == "message" or name in VOLATILE or (item, name) == ("variable_item", "var_ref"):
            continue
        if (name, datatype) in EXPLAINED:
            datatype = "a version"
        found.append((name, datatype, child.get("status", "exists"), child.text or ""))
    return tuple(sorted(found))


def is_explained(theirs, ours):
    """The result of a time difference of something that is not there has an item without a value, or none."""
    (their_flag, their_items), (our_flag, our_items) = theirs, ours
    is_empty = all(name == "variable_item" and not values for name, _, values in their_items)
    return their_flag == "complete" and our_flag == "does not exist" and is_empty and not our_items


def only(items, others, most=2):
    """Items of one side that the other lacks, as text."""
    for item in list(items - others)[:most]:
        yield f"{item[0]} {item[1]} {[(n, v) for n, _, _, v in item[2]][:6]}"


def nearest(item, others):
    """What differs from the most similar item of the other side: (only here, only there)."""
    best = max(others, key=lambda other: len(set(item[2]) & set(other[2])), default=None)
    return best and (sorted(set(item[2]) - set(best[2])), sorted(set(best[2]) - set(item[2])), item[1], best[1])


def say(key, their, our):
    """Prints a difference of an object."""
    our_flag, our_items = our or (None, Counter())
    print(f"  {key}: oscap {their[0]}, {sum(their[1].values())} items; muster {our_flag}, {sum(our_items.values())} items")
    for item in list(their[1] - our_items)[:1]:
        if found := nearest(item, list(our_items - their[1])):
            print(f"    nearest: oscap {found[2]} {found[0]}; muster {found[3]} {found[1]}")
    for name, lacking in (("oscap", only(their[1], our_items)), ("muster", only(our_items, their[1]))):
        for item in lacking:
            print(f"    only {name}: {item}")


def main():
    what, theirs_path, ours_path = sys.argv[1:]
    read = {"rules": rules, "objects": objects}[what]
    theirs, ours = read(theirs_path), read(ours_path)
    without_value = unbound(ours_path) if what == "objects" else set()
    explained, differ = 0, []
    for key, their in sorted(theirs.items()):
        our = ours.get(key)
        if our == their:
            continue
        # A question that was not asked in full is an error, and no object that finds nothing.
        is_unasked = key in without_value and our[0] == "error" and not any(values for _, _, values in their[1])
        if is_unasked or (what == "objects" and our is not None and is_explained(their, our)):
            explained += 1
            continue
        differ.append(key)
        if what == "rules":
            print(f"  {key}: oscap {their}, muster {our}")
        else:
            say(key, their, our)
    counts = Counter(theirs.values()) if what == "rules" else Counter(flag for flag, _ in theirs.values())
    print(f"  {len(theirs) - len(differ)} of {len(theirs)} {what} agree ({explained} explained); oscap: {dict(counts)}")
    if differ or len(theirs) < 10:
        sys.exit(1)


if __name__ == "__main__":
    main()
