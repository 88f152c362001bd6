"""What tests/endpoint/scale.sh needs: trees of many files, content that asks about them, a measure of a command, and a comparison.

usage: scale.py tree DIRECTORY NUMBER            files as a server has them, a few of them as they should not be
       scale.py matching DIRECTORY NUMBER        files that one pattern means, three of them unlike the others
       scale.py content DIRECTORY RULES          benchmark.xml and oval.xml: rules that walk the whole file system
                                                 filtered.xml and existing.xml: definitions about what `matching` makes
       scale.py measure SECONDS COST COMMAND…    runs a command; its seconds (user, system, wall), KiB and code go to COST; a command
                                                 that takes longer is killed, and its code is `late`
       scale.py rules [--offline] THEIRS OURS    compares verdicts in two results; with --offline, what docs/oscap-differences.md says
                                                 of another root is told by its reason
       scale.py items THEIRS OURS                compares verdicts and all items that were found
       scale.py definitions [THEIRS] OURS        compares results of OVAL with each other, and with what is known of `matching`
       scale.py installation JSON OURS           compares `muster results -o json` with a result of `muster scap`

What compares ends with 1 where something differs that is not explained.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from xml.etree import ElementTree

import compare

OVAL_ID = re.compile(r"oval:[A-Za-z0-9_.-]+:(?:def|tst|obj|ste|var):[0-9]+")
NOBODY = 54_321
DEPTH_MAX = 8
MODES = (0o644,) * 14 + (0o600,) * 2 + (0o640, 0o755, 0o755, 0o444)


def tree(base, number):
    """Directories of 50 to 200 entries, at most eight inside each other; empty files, but each an inode of its own."""
    os.umask(0)
    chance = random.Random(number)
    # What should not be is rare on a server, and there are some of each kind in a small tree too.
    rare = max(10, min(10_000, number // 5))
    os.makedirs(base, mode=0o755)
    waiting, made, directories = [(base, 1)], 0, 1
    while made < number:
        directory, depth = waiting.pop(chance.randrange(len(waiting)))
        entries = chance.randint(50, 200)
        # Few are waiting at any time, so that few are empty in the end.
        below = 0 if depth == DEPTH_MAX else chance.randint(2, 6) if len(waiting) < 20 else chance.randint(0, 1)
        for at in range(below):
            path = f"{directory}/d{at}"
            os.mkdir(path, 0o777 if directories % (rare // 5) == 1 else 0o755)
            directories += 1
            waiting.append((path, depth + 1))
        if not waiting:
            path = f"{base}/more{directories}"
            os.mkdir(path, 0o755)
            waiting.append((path, 2))
        for at in range(min(entries - below, number - made)):
            one(f"{directory}/f{at}", made, rare, chance)
            made += 1


def one(path, at, rare, chance):
    if at % 50 == 49:
        os.symlink("f0" if at % 100 == 49 else "nothing", path)
        return
    odd = {0: 0o666, 1: 0o4755, 2: 0o2755}.get(at % rare)
    os.mknod(path, 0o100_000 | (odd or chance.choice(MODES)))
    if at % rare in (3, 4):
        os.chown(path, NOBODY if at % rare == 3 else -1, NOBODY if at % rare == 4 else -1)


def matching(base, number):
    os.umask(0)
    for at in range(number):
        directory = f"{base}/{at // 100}"
        if at % 100 == 0:
            os.makedirs(directory, mode=0o755)
        is_odd = at % (number // 3) == 1
        descriptor = os.open(f"{directory}/{at}.conf", os.O_CREAT | os.O_WRONLY, 0o600 if is_odd else 0o644)
        os.write(descriptor, b"setting = off  # and it is longer\n" if is_odd else b"setting = on\n")
        os.close(descriptor)


NAMESPACES = " ".join(
    f'xmlns{name}="http://oval.mitre.org/XMLSchema/oval-{where}"'
    for name, where in (("", "definitions-5"), (":oval", "common-5"), (":unix", "definitions-5#unix"), (":ind", "definitions-5#independent"))
)
DOWN = '<unix:behaviors recurse="directories" recurse_direction="down" max_depth="-1" recurse_file_system="local"/>'
# Rule -> title, name of a file, filters. As the SCAP Security Guide asks for them.
WALKS = {
    "world_writable": ("No file may be written by anybody", '<unix:filename operation="pattern match">^.*$</unix:filename>', "include 1", "exclude 2"),
    "unowned": ("Every file has an owner", '<unix:filename operation="pattern match">^.*$</unix:filename>', "exclude 3", "exclude 2"),
    "ungrouped": ("Every file has a group", '<unix:filename operation="pattern match">^.*$</unix:filename>', "exclude 4", "exclude 2"),
    "setuid_setgid": ("No program has rights of its own", '<unix:filename operation="pattern match">^.*$</unix:filename>', "include 5", "exclude 2"),
    "sticky": ("Directories that anybody may write are sticky", '<unix:filename xsi:nil="true"/>', "include 6", "exclude 2"),
}
WALK_STATES = """
<unix:file_state id="oval:scale:ste:1" version="1"><unix:type>regular</unix:type><unix:owrite datatype="boolean">true</unix:owrite></unix:file_state>
<unix:file_state id="oval:scale:ste:2" version="1"><unix:path operation="pattern match">^/(proc|sys|dev)(/|$)</unix:path></unix:file_state>
<unix:file_state id="oval:scale:ste:3" version="1"><unix:user_id datatype="int" var_ref="oval:scale:var:1" var_check="at least one"/></unix:file_state>
<unix:file_state id="oval:scale:ste:4" version="1"><unix:group_id datatype="int" var_ref="oval:scale:var:2" var_check="at least one"/></unix:file_state>
<unix:file_state id="oval:scale:ste:5" version="1" operator="OR"><unix:suid datatype="boolean">true</unix:suid><unix:sgid datatype="boolean">true</unix:sgid></unix:file_state>
<unix:file_state id="oval:scale:ste:6" version="1"><unix:sticky datatype="boolean">false</unix:sticky><unix:owrite datatype="boolean">true</unix:owrite></unix:file_state>
"""
WALK_OBJECTS = """
<unix:password_object id="oval:scale:obj:101" version="1"><unix:username operation="pattern match">.*</unix:username></unix:password_object>
<ind:textfilecontent54_object id="oval:scale:obj:102" version="1"><ind:filepath>/etc/group</ind:filepath>
<ind:pattern operation="pattern match">^[^:]+:[^:]*:(\\d+):</ind:pattern><ind:instance datatype="int" operation="greater than or equal">1</ind:instance></ind:textfilecontent54_object>
"""
WALK_VARIABLES = """<variables>
<local_variable id="oval:scale:var:1" version="1" datatype="int" comment="owners"><object_component object_ref="oval:scale:obj:101" item_field="user_id"/></local_variable>
<local_variable id="oval:scale:var:2" version="1" datatype="int" comment="groups"><object_component object_ref="oval:scale:obj:102" item_field="subexpression"/></local_variable>
</variables>"""

FILES = '<unix:path operation="pattern match">^/srv/matching(/.*)?$</unix:path><unix:filename operation="pattern match">\\.conf$</unix:filename>'
TEXTS = (
    FILES.replace("unix:", "ind:")
    + '<ind:pattern operation="pattern match">^setting = (\\w+)</ind:pattern><ind:instance datatype="int">1</ind:instance>'
)
# Number -> existence, object, kind, filter, state, and what is so of what `matching` makes.
FILTERED = {
    1: ("only_one_exists", FILES, "unix:file", "include 1", None, "false"),
    2: ("at_least_one_exists", FILES, "unix:file", "include 1", 5, "true"),
    3: ("at_least_one_exists", FILES, "unix:file", "include 2", 5, "true"),
    4: ("none_exist", FILES, "unix:file", "include 3", None, "true"),
    5: ("at_least_one_exists", TEXTS, "ind:textfilecontent54", "exclude 4", 6, "true"),
    6: ("at_least_one_exists", TEXTS, "ind:textfilecontent54", "exclude 4", 4, "false"),
}
EXISTING = {
    11: ("none_exist", FILES, "unix:file", None, None, "false"),
    12: ("at_least_one_exists", FILES, "unix:file", None, None, "true"),
    13: ("at_least_one_exists", TEXTS, "ind:textfilecontent54", None, None, "true"),
}
MATCHING_STATES = """
<unix:file_state id="oval:scale:ste:1" version="1"><unix:oread datatype="boolean">false</unix:oread></unix:file_state>
<unix:file_state id="oval:scale:ste:2" version="1"><unix:size datatype="int" operation="greater than">20</unix:size></unix:file_state>
<unix:file_state id="oval:scale:ste:3" version="1"><unix:size datatype="int" operation="greater than">2000</unix:size></unix:file_state>
<ind:textfilecontent54_state id="oval:scale:ste:4" version="1"><ind:subexpression>on</ind:subexpression></ind:textfilecontent54_state>
<unix:file_state id="oval:scale:ste:5" version="1"><unix:user_id datatype="int">0</unix:user_id></unix:file_state>
<ind:textfilecontent54_state id="oval:scale:ste:6" version="1"><ind:subexpression>off</ind:subexpression></ind:textfilecontent54_state>
"""


def document(path, tests, states, more_objects="", variables=""):
    """OVAL definitions of (number, title, existence, kind, object, filters, state)."""
    definitions, kept_tests, objects = [], [], []
    for number, title, existence, kind, entities, filters, state in tests:
        definitions.append(
            f'<definition class="compliance" id="oval:scale:def:{number}" version="1"><metadata><title>{title}</title><description>{title}</description>'
            f'</metadata><criteria><criterion test_ref="oval:scale:tst:{number}"/></criteria></definition>'
        )
        asked = f'<{kind.split(":")[0]}:state state_ref="oval:scale:ste:{state}"/>' if state else ""
        kept_tests.append(
            f'<{kind}_test id="oval:scale:tst:{number}" version="1" check="all" check_existence="{existence}" comment="{title}">'
            f'<{kind.split(":")[0]}:object object_ref="oval:scale:obj:{number}"/>{asked}</{kind}_test>'
        )
        chosen = "".join('<filter action="{}">oval:scale:ste:{}</filter>'.format(*each.split()) for each in filters if each)
        objects.append(f'<{kind}_object id="oval:scale:obj:{number}" version="1">{entities}{chosen}</{kind}_object>')
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'<oval_definitions {NAMESPACES} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><generator><oval:schema_version>5.11</oval:schema_version>'
            f"<oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator><definitions>{''.join(definitions)}</definitions>"
            f"<tests>{''.join(kept_tests)}</tests><objects>{''.join(objects)}{more_objects}</objects>"
            f"<states>{states.strip()}</states>{variables}</oval_definitions>\n"
        )


def content(directory, rules):
    chosen = list(WALKS.items())[:rules]
    walks = [(at, title, "none_exist", "unix:file", f'{DOWN}<unix:path>/</unix:path>{name}', filters, None) for at, (_, (title, name, *filters)) in enumerate(chosen, 1)]
    document(f"{directory}/oval.xml", walks, WALK_STATES, WALK_OBJECTS, WALK_VARIABLES)
    parts = "".join(
        f'<Rule id="xccdf_scale_rule_{name}" selected="true"><title>{about[0]}</title><check system="http://oval.mitre.org/XMLSchema/oval-definitions-5">'
        f'<check-content-ref href="oval.xml" name="oval:scale:def:{at}"/></check></Rule>'
        for at, (name, about) in enumerate(chosen, 1)
    )
    with open(f"{directory}/benchmark.xml", "w", encoding="utf-8") as file:
        file.write(
            '<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="xccdf_scale_benchmark_walks"><status>draft</status><title>Walks</title>'
            f"<version>1</version>{parts}</Benchmark>\n"
        )
    for name, known in (("filtered", FILTERED), ("existing", EXISTING)):
        tests = [(number, f"{existence} of {kind}", existence, kind, entities, [chosen], state) for number, (existence, entities, kind, chosen, state, _) in known.items()]
        document(f"{directory}/{name}.xml", tests, MATCHING_STATES)


def measure(seconds, cost, command):
    """Runs a command in a group of its own, so that nothing is left of it, whatever ends it."""
    child, is_late = None, False

    def end(number, _):
        nonlocal is_late
        is_late = number == signal.SIGALRM
        if child:
            os.killpg(child.pid, signal.SIGKILL)
        if not is_late:
            sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, end)
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.alarm(seconds)
    _, status, used = os.wait4(child.pid, 0)
    signal.alarm(0)
    code = "late" if is_late else os.waitstatus_to_exitcode(status)
    with open(cost, "w", encoding="utf-8") as file:
        print(used.ru_utime, used.ru_stime, time.monotonic() - began, used.ru_maxrss, code, file=file)


def verdicts(theirs, ours):
    """Rules whose verdicts differ, each with both."""
    return {rule: (theirs.get(rule), ours.get(rule)) for rule in sorted(theirs.keys() | ours.keys()) if theirs.get(rule) != ours.get(rule)}


# Kinds of objects that need a live system, and of which the engines say different things below another root: docs/oscap-differences.md.
LIVE = {
    "systemdunitproperty_object": "systemd below another root",
    "systemdunitdependency_object": "systemd below another root",
}


class Asked:
    """What was asked for in a result data stream, and how each object was answered."""

    def __init__(self, path):
        self.uses, self.kinds, self.flags, self.checks = defaultdict(set), {}, {}, defaultdict(set)
        for _, element in ElementTree.iterparse(path):
            name, key = compare.local(element.tag), element.get("id", "")
            if name == "object" and element.get("flag"):
                self.flags[key] = element.get("flag")
            elif name == "rule-result":
                self.checks[element.get("idref")] |= {each.get("name") for each in element.iter() if compare.local(each.tag) == "check-content-ref"}
            elif OVAL_ID.fullmatch(key):
                self.kinds[key] = name
                self.uses[key] |= set(OVAL_ID.findall(ElementTree.tostring(element, encoding="unicode"))) - {key}

    def objects(self, rule):
        """All objects that a rule rests on."""
        seen, left = set(), list(self.checks[rule])
        while left:
            key = left.pop()
            if key not in seen:
                seen.add(key)
                left += self.uses[key]
        return {key for key in seen if key in self.flags}


def reasons(theirs):
    """Why verdicts may differ below another root, by the kind of an object that a rule rests on."""
    with open(theirs.removesuffix(".xml") + ".err", encoding="utf-8", errors="replace") as file:
        is_without_packages = "dpkginfo_init has failed" in file.read()
    return {**LIVE, "dpkginfo_object": "packages, of which oscap says that it cannot look at them"} if is_without_packages else LIVE


def reason(rule, their, our, reasons):
    """Why the verdicts of a rule may differ below another root."""
    found = {reasons[their.kinds[key]] for key in their.objects(rule) if their.kinds.get(key) in reasons and their.flags[key] != our.flags.get(key)}
    return min(found, default=None)


def printed_rules(theirs):
    """Verdicts as `oscap` printed them."""
    rules, rule = {}, None
    with open(theirs.removesuffix(".xml") + ".out", encoding="utf-8", errors="replace", newline="") as file:
        for line in file.read().split("\n"):
            words = line.split()
            if len(words) == 2 and words[0] == "Rule":
                rule = words[1]
            elif len(words) == 2 and words[0] == "Result":
                rules[rule] = words[1]
    return rules


def tell_rules(theirs, ours, is_offline):
    our_rules = compare.rules(ours)
    try:
        their_rules = compare.rules(theirs)
    except ElementTree.ParseError as error:
        print(f"  the document of oscap is not XML ({error}): its verdicts are taken from what it printed")
        # It prints nothing of rules that are not selected.
        their_rules, is_offline = printed_rules(theirs), False
        our_rules = {rule: verdict for rule, verdict in our_rules.items() if verdict != "notselected"}
    differ = verdicts(their_rules, our_rules)
    explained = defaultdict(list)
    if differ and is_offline:
        their, our, known = Asked(theirs), Asked(ours), reasons(theirs)
        for rule in list(differ):
            if why := reason(rule, their, our, known):
                explained[why].append((rule, *differ.pop(rule)))
    for rule, (their, our) in differ.items():
        print(f"  {rule}: oscap {their}, muster {our}")
    for why, rules in sorted(explained.items()):
        ways = Counter(f"oscap {their}, muster {our}" for _, their, our in rules)
        print(f"  {why}, {len(rules)} rules: {', '.join(f'{way} ({count})' for way, count in ways.items())}")
    count = sum(map(len, explained.values()))
    agree = len(their_rules) - len(differ) - count
    print(f"  {agree} of {len(their_rules)} rules agree, {count} differ as is explained; oscap: {dict(Counter(their_rules.values()))}")
    return not differ and bool(their_rules)


def tell_items(theirs, ours):
    is_same = tell_rules(theirs, ours, False)
    their_objects, our_objects = compare.objects(theirs), compare.objects(ours)
    for key, their in sorted(their_objects.items()):
        if their != our_objects.get(key):
            compare.say(key, their, our_objects.get(key))
            is_same = False
    print(f"  {sum(sum(items.values()) for _, items in their_objects.values())} items of {len(their_objects)} objects, compared one by one")
    return is_same and bool(their_objects)


def results(path):
    """Definition -> result, in OVAL results."""
    found = (element for _, element in ElementTree.iterparse(path) if compare.local(element.tag) == "definition" and element.get("result"))
    return {element.get("definition_id"): element.get("result") for element in found}


def tell_definitions(ours, theirs=None):
    known = {f"oval:scale:def:{number}": truth for number, (*_, truth) in (FILTERED | EXISTING).items()}
    our = results(ours)
    their = results(theirs) if theirs else {}
    differ = [key for key in sorted(our) if our[key] != known[key] or (theirs and their.get(key) != our[key])]
    for key in differ:
        print(f"  {key}: oscap {their.get(key)}, muster {our[key]}; it is {known[key]}")
    print(f"  {len(our) - len(differ)} of {len(our)} definitions {'agree' if theirs else 'are as the files are, and there is no answer of oscap'}")
    return not differ and bool(our)


def tell_installation(path, ours):
    with open(path, encoding="utf-8") as file:
        theirs = {each["rule"]: each["verdict"] for results in json.load(file)["results"] for each in results}
    differ = verdicts(theirs, {rule: verdict for rule, verdict in compare.rules(ours).items() if rule in theirs})
    for rule, (their, our) in differ.items():
        print(f"  {rule}: the installation {their}, muster scap {our}")
    print(f"  {len(theirs) - len(differ)} of {len(theirs)} verdicts of the installation are those of muster scap")
    return not differ and bool(theirs)


def main():
    what, *words = sys.argv[1:]
    if what == "tree":
        tree(words[0], int(words[1]))
    elif what == "matching":
        matching(words[0], int(words[1]))
    elif what == "content":
        content(words[0], int(words[1]))
    elif what == "measure":
        measure(int(words[0]), words[1], words[2:])
    elif what == "rules":
        is_offline = words[0] == "--offline"
        sys.exit(not tell_rules(*words[is_offline:], is_offline))
    elif what == "items":
        sys.exit(not tell_items(*words))
    elif what == "definitions":
        sys.exit(not tell_definitions(*reversed(words)))
    elif what == "installation":
        sys.exit(not tell_installation(*words))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
