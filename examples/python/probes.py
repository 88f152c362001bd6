"""Probes: what this collector can find out about the machine that it runs on.

A probe gets the entities of an object (name and literal value, or None for `nil`) and answers with items. The kinds
and entities are those of OVAL 5.11's system characteristics. No probe starts a process.
"""

import json
import os
from pathlib import Path

from wire import KIB, UNREADABLE, Fault, now, time_text

PART_BYTES, VALUE_BYTES_MAX = 256 * KIB, 64 * KIB


def text_of(path):
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def facts():
    """What the endpoint says of itself."""
    system = os.uname()
    names = [line.partition("=")[2].strip("\"'") for line in text_of("/etc/os-release").splitlines()
             if line.startswith("PRETTY_NAME=")]
    known = {"host-name": system.nodename or "unnamed", "os-name": (names or [system.sysname])[0],
             "os-version": system.release, "architecture": system.machine, "is-privileged": os.geteuid() == 0}
    machine_id = text_of("/etc/machine-id").strip()
    return {**known, "machine-id": machine_id} if machine_id else known


def item(kind, *entities):
    """An item: entities in the order of the OVAL schema, as name, value and, where it is not `string`, datatype."""
    return {"kind": kind, "entities": [dict(zip(("n", "v", "t"), entity)) for entity in entities]}


def family(_asked):
    return [item("independent:family", ("family", "unix"))]


def uname(_asked):
    system = os.uname()
    return [item("unix:uname", ("machine_class", system.machine), ("node_name", system.nodename),
                 ("os_name", system.sysname), ("os_release", system.release), ("os_version", system.version),
                 ("processor_type", system.machine))]


def environment_variable(asked):
    if asked.get("pid") is not None:
        raise Fault("unsupported-data-model", "this collector looks at its own environment only")
    value = os.environb.get(asked["name"].encode())
    if value is None:
        return []
    return [item("independent:environmentvariable58", ("pid", str(os.getpid()), "int"), ("name", asked["name"]),
                 ("value", value.decode(errors="replace")))]


def sysctl(asked):
    try:
        # Dots become slashes, so no name leads out of /proc/sys.
        text = Path("/proc/sys", asked["name"].replace(".", "/").lstrip("/")).read_text(errors="replace")
    except FileNotFoundError:
        return []
    lines = (text[:-1] if text.endswith("\n") else text).split("\n")
    return [item("unix:sysctl", ("name", asked["name"]), *(("value", line) for line in lines))]


PROBES = {"independent:family": family, "unix:uname": uname, "unix:sysctl": sysctl,
          "independent:environmentvariable58": environment_variable}


def look(wanted):
    """What one object of a plan finds: flag, items, messages. An object that is not understood in every part is
    not collected: the answer to another question would pass for the answer to this one."""
    try:
        probe, asked = PROBES.get(wanted["kind"]), {}
        if probe is None:
            raise Fault("unsupported-data-model", f"this collector has no probe for {wanted['kind']}")
        if set(wanted) - {"kind", "entities"}:
            raise Fault("unsupported-data-model", "this collector covers no sets, filters or behaviors")
        for entity in wanted.get("entities", []):
            name, value = entity["name"], entity["value"]
            is_literal = isinstance(value, dict) and list(value) == ["literal"]
            is_plain = not set(entity) - {"name", "value", "datatype"}  # `equals`, and nothing to mask
            if not is_plain or not (is_literal or value == "nil"):
                raise Fault("unsupported-data-model", f"this collector does not cover what is asked of `{name}`")
            asked[name] = value["literal"] if is_literal else None
        items = probe(asked)
        if any(len(entity["v"].encode()) > VALUE_BYTES_MAX for each in items for entity in each["entities"]):
            raise Fault("too-large", "a value is longer than the wire carries")
        return ("complete" if items else "does-not-exist"), items, []
    except Fault as fault:
        return "not-collected", [], [fault.body["message"]]
    except PermissionError as error:
        return "not-collected", [], [f"no rights to read {error.filename}"]
    except (OSError, *UNREADABLE) as error:
        return "error", [], [f"{type(error).__name__}: {error}"]


def parts_of(plan, named=None):
    """All that a plan wants reported, or the objects that were named; `objects` refer to `items` by position."""
    parts, size = [{"items": [], "objects": []}], 0
    for key in plan["report"]:
        if named and key not in named:
            continue
        flag, items, messages = look(plan["objects"].get(key, {}))
        found = {"object": key, "flag": flag, "collected": time_text(now()), "messages": messages}
        more = len(json.dumps([found, items]))
        if size and size + more > PART_BYTES:
            parts.append({"items": [], "objects": []})
            size = 0
        size += more
        first = len(parts[-1]["items"])
        parts[-1]["items"] += items
        parts[-1]["objects"].append({**found, "items": list(range(first, first + len(items)))})
    return parts
