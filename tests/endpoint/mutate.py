"""Makes small broken endpoints, asks two SCAP engines about each, and compares what they collect.

usage: mutate.py [--seed N] [--cases N] [--muster PROGRAM] [--jobs N] [--keep DIR]

Needs root, `oscap`, and a file system that can be mounted. Each case has a seed: the first one is --seed, then one more each
time. A case runs in mount, network and process namespaces of its own, below a root that is made for it: a read-only copy of
the engines, and /srv, /etc and /var in memory. /proc/sys is read-only. Nothing reaches the machine.

Prints each difference that is not explained (reasons.py) with its seed; `--seed N --cases 1 --keep DIR` runs it again and leaves the
document, what both engines say, and the files in DIR. The last line says how many objects agree. Exit 1 where a difference is
not explained, or where oscap is not done, for no reason that is known, in more than one case of a hundred.
"""

import argparse
import concurrent.futures
import ctypes
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from copy import deepcopy

import broken
import compare
import questions
from reasons import SURROGATE, Document, Question, read, read_objects, values, why

SECONDS_MAX = 20
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 1024, 4096, 16384, 1 << 18
INDEPENDENT = "{http://oval.mitre.org/XMLSchema/oval-definitions-5#independent}"
# What oscap needs to run: itself, what it asks for architectures of packages, and its tables.
PROGRAMS = ["/usr/bin/oscap", "/usr/bin/dpkg"]
TREES = ["/usr/share/openscap", "/usr/share/dpkg", "/usr/lib/apt"]


def libraries(program):
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/\S+) \(0x", listed))


def make_root(root, muster):
    """A root with the engines and nothing else."""
    wanted = {program: program for program in PROGRAMS} | {muster: "/usr/bin/muster"}
    for program in list(wanted):
        wanted |= {library: library for library in libraries(program)}
    for source, target in wanted.items():
        at = root + target
        os.makedirs(os.path.dirname(at), exist_ok=True)
        shutil.copy(os.path.realpath(source), at)
    for tree in TREES:
        if os.path.isdir(tree):
            shutil.copytree(tree, root + tree, symlinks=True)
    for name in ("srv", "etc", "var", "proc", "tmp", "dev", "work"):
        os.makedirs(os.path.join(root, name))


def mount(source, target, kind=None, flags=0, data=None):
    libc = ctypes.CDLL(None, use_errno=True)
    texts = [None if each is None else os.fsencode(each) for each in (source, target, kind, data)]
    if libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def enter(root, work):
    """Makes the root what a case may see. Only this process and its children see it so."""
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    mount(root, root, flags=MS_BIND)
    mount(None, root, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    for name in ("srv", "etc", "var", "tmp", "dev"):
        # Looking changes nothing: what an engine tells twice, before and after it has looked, would depend on the time of day.
        mount("none", f"{root}/{name}", "tmpfs", MS_NOATIME, "size=300m,mode=755")
    mount("proc", root + "/proc", "proc", MS_NOSUID)
    mount(root + "/proc/sys", root + "/proc/sys", flags=MS_BIND)
    mount(None, root + "/proc/sys", flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    # This process is the first one there, and the machine's files are behind it.
    mount("none", root + "/proc/1", "tmpfs", MS_RDONLY)
    mount(work, root + "/work", flags=MS_BIND)
    for name, minor in (("null", 3), ("urandom", 9)):
        os.mknod(f"{root}/dev/{name}", 0o666 | 0o020000, os.makedev(1, minor))
    os.makedirs(root + "/srv/case")
    os.makedirs(root + "/var/lib/dpkg")
    # Without an address oscap collects nothing. And an interface with a dot in its name.
    for words in ("set lo up", "add v0.1 type veth peer name v1"):
        subprocess.run(["ip", "link", *words.split()], check=False, stderr=subprocess.DEVNULL)


def ask(root, name, arguments):
    """How a program ended: its exit code, or a word."""
    def inside():
        os.chroot(root)
        os.chdir("/")

    # Elsewhere while it runs: some of what is asked for looks everywhere.
    with tempfile.TemporaryFile() as log:
        try:
            ended = subprocess.run(
                arguments, preexec_fn=inside, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=SECONDS_MAX, check=False,
                env={"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C"},
            )  # fmt: skip
            code = ended.returncode
        except subprocess.TimeoutExpired:
            code = "timeout"
        log.seek(0)
        with open(f"{root}/work/{name}.log", "wb") as kept:
            shutil.copyfileobj(log, kept)
    return code


def why_dead(code, root, tree, text):
    """The reason for which oscap gives no answer, if it is one that is known."""
    if code == "timeout" and tree.has_fifo:
        return "oscap waits for a FIFO (cases)"
    if code == "timeout" and (tree.is_any_large or (tree.is_much and re.search(r">(?:x\*|\.|\(\?:\))</(?:ind:pattern|value)>", text))):
        return "oscap takes longer than 20 s for many items (cases)"
    if code == -11 and re.search(rb"^\s*[+-][^:\n\0]*:?(?:$|\0)", read_bytes(root + "/etc/shadow"), re.M):
        return "oscap dies of a line of NIS in shadow (cases)"
    return None


# oscap's time goes with the square of an object's items: 1,000 matches in one file take it 1.3 s, 2,000 take 4.0 s, 4,000 take 21 s.
MANY_ITEMS = 2_000
NOT_DONE = f"oscap not done after {SECONDS_MAX} s (cases)"


def why_slow(upwards, ours):
    """Why oscap is not done, if where it looks upwards or what Muster has found says so."""
    if any(re.match("//|[^/]", path) for path in upwards):
        return "oscap looks upwards for ever from what does not begin with one slash (cases)"
    if any(sum(items.values()) >= MANY_ITEMS for _, items in ours.values()):
        return f"oscap takes longer than {SECONDS_MAX} s for an object of many items (cases)"
    return NOT_DONE


def upwards(root, work):
    """The paths from which oscap looks upwards. Those that are a variable's values, it is asked for, with an object of the variable for each."""
    document = ET.parse(work + "/D.xml").getroot()
    objects, paths, asked, uses = document.find("{*}objects"), [], set(), used_in(document)
    for each in list(objects):
        path, behaviors = each.find("{*}path"), each.find("{*}behaviors")
        if path is None or path.get("operation", "equals") != "equals" or behaviors is None or behaviors.get("recurse_direction") != "up":
            continue
        objects.remove(each)
        if path.get("var_ref") is None:
            paths.append(path.text or "")
        else:
            of_variable = ET.SubElement(objects, INDEPENDENT + "variable_object", {"id": each.get("id") + "0001", "version": "1"})
            ET.SubElement(of_variable, INDEPENDENT + "var_ref").text = path.get("var_ref")
            asked.add(of_variable.get("id"))
            uses[of_variable.get("id")] = [path.get("var_ref")]
    needed = asked.union(*(used_by(key, uses) for key in asked))
    for each in list(objects):
        if each.get("id") not in needed:
            objects.remove(each)
    if asked and again(root, work, document):
        paths += [value for key, (_, items) in read(work + "/F.xml")[0].items() if key in asked for value in values(items, "value")]
    return paths


def again(root, work, document):
    """Asks oscap something else about the same files: whether it answers, in F.xml."""
    with open(work + "/E.xml", "w", encoding="utf-8", newline="") as file:
        file.write(ET.tostring(document, encoding="unicode").replace("\r", "&#13;"))
    return ask(root, "again", ["/usr/bin/oscap", "oval", "collect", "--skip-valid", "--syschar", "/work/F.xml", "/work/E.xml"]) == 0


def is_whole(root, path):
    """Whether an answer is XML without any help, and says something of each object that was asked for."""
    try:
        answered = {each.get("id") for each in ET.parse(path).getroot().iter() if compare.local(each.tag) == "object" and each.get("flag")}
    except ET.ParseError:
        return False
    return all(each.get("id") in answered for each in root.find("{*}objects"))


def facts():
    """What the reasons ask about the files."""
    found = {"of any": [], "repeated": {}, "links up": {}, "after links": [], "is any unnamed after a link": False, "end at NUL": []}
    for directory, directories, names in os.walk(questions.CASE):
        for at in (os.path.join(directory, name) for name in directories + names):
            # It leads to a directory that it is in.
            if os.path.islink(at) and os.path.isdir(at) and (directory + "/").startswith(os.path.realpath(at) + "/"):
                found["links up"][at] = os.path.realpath(at)
        found["end at NUL"] += [at for name in names if os.path.isfile(at := os.path.join(directory, name)) and read_bytes(at).endswith(b">\0")]
        is_after = False
        for at in (os.path.join(directory, name) for name in os.listdir(directory)):
            # Where a link leads to no directory, the next directory is for oscap the one it leads to.
            is_after |= os.path.islink(at) and not os.path.isdir(at)
            if is_after and os.path.isdir(at):
                is_after = False
                if not os.path.islink(at):
                    found["after links"].append(at)
                    found["is any unnamed after a link"] |= any(SURROGATE.search(name) for _, *names in os.walk(at) for name in itertools.chain(*names))
    for paragraph in re.split(r"\n\n+", read_bytes("/var/lib/dpkg/status").decode("utf-8", "replace")):
        fields = dict(re.findall(r"^(Package|Architecture|Version):[ \t]*(\S+)", paragraph, re.M))
        if fields.get("Architecture") == "any":
            found["of any"].append([fields.get("Package"), fields.get("Version")])
    found["same versions"] = same_versions(read_bytes("/var/lib/dpkg/status").decode("utf-8", "replace"))
    for kind in ("password", "shadow"):
        last = read_bytes({"password": "/etc/passwd", "shadow": "/etc/shadow"}[kind]).rsplit(b"\n", 1)[-1]
        line = last.lstrip(b" \t\v\f\r")
        if 0 < len(last) - len(line) < len(line):
            end = line[len(line) - (len(last) - len(line)) :]
            found["repeated"][kind] = [each.decode("utf-8", "replace") for each in (line.split(b":")[0], end)]
    return found


def same_versions(status):
    """[name, architecture, version, version] where a package is there twice, with two names of one version."""
    packages = [dict(re.findall(r"^(Package|Architecture|Version):[ \t]*(\S+)", paragraph, re.M)) for paragraph in re.split(r"\n\n+", status)]
    found, named = [], [tuple(each.get(field, "") for field in ("Package", "Architecture", "Version")) for each in packages]
    for (name, arch, version), (name2, arch2, version2) in itertools.combinations(named, 2):
        if (name, arch) == (name2, arch2) and version != version2 and plain_version(version) == plain_version(version2):
            found.append([name, arch, *sorted([with_epoch(version), with_epoch(version2)])])
    return found


def with_epoch(version):
    return version if ":" in version else "0:" + version


def plain_version(version):
    """Epoch, version and release without what dpkg does not look at: leading zeros, and a release of 0."""
    epoch, rest = with_epoch(version).split(":", 1)
    upstream, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
    plain = lambda text: re.sub(r"(?<!\d)0+(?=\d)", "", text)
    return plain(epoch), plain(upstream), "" if release == "0" else plain(release)


def read_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def inside(root, work, seed, keep):
    """One case, in namespaces of its own."""
    os.umask(0)
    enter(root, work)
    r = random.Random(seed)
    broken.system(r, root)
    tree = broken.Tree(r, root + "/srv/case")
    text = questions.document(r, tree.names)
    with open(work + "/D.xml", "w", encoding="utf-8") as file:
        file.write(text)
    if keep:
        os.makedirs(keep, exist_ok=True)
        subprocess.run(["cp", "-a", root + "/srv", root + "/etc", root + "/var", keep], check=False)
    ended = {}
    aside = tempfile.mkdtemp(dir=os.path.dirname(work))
    for name, program, syschar in (("oscap", "/usr/bin/oscap", "A"), ("muster", "/usr/bin/muster", "B")):
        ended[name] = ask(root, name, [program] + (["scap"] if name == "muster" else []) + ["oval", "collect", "--skip-valid", "--syschar", f"/work/{syschar}.xml", "/work/D.xml"])
        # What one of them leaves, the other one does not see.
        for left in set(os.listdir(work)) - {"D.xml"}:
            shutil.move(f"{work}/{left}", aside)
    for left in os.listdir(aside):
        shutil.move(f"{aside}/{left}", work)
    os.rmdir(aside)
    ended["is any chain long"] = tree.is_any_chain_long
    ended["why"] = why_dead(ended["oscap"], root, tree, text)
    ended["upwards"] = upwards(root, work) if ended["oscap"] == "timeout" and not ended["why"] else []
    ended["lost"] = lost_messages(root, work) if ended["oscap"] == 0 else {}
    with open(work + "/ended.json", "w", encoding="utf-8") as file:
        # From here on links lead where they lead for the engines.
        os.chroot(root)
        json.dump({**ended, "facts": facts()}, file)


def lost_messages(root, work):
    """Where an object's variable has several values, oscap asks for one after the other, and forgets why one of them was an error.
    So it is asked again, with an object for each value: object -> messages."""
    found = read_objects(work + "/A.xml")
    document = ET.parse(work + "/D.xml").getroot()
    objects, asked = document.find("{*}objects"), {}
    for each in list(objects):
        their = found.get(each.get("id"))
        objects.remove(each)
        if each.tag.endswith("}textfilecontent54_object") and their and their.flag == "error" and not their.messages and their.values:
            for at, several in enumerate(itertools.product(*[their.values.get(child.get("var_ref"), [None]) for child in each])):
                copy = deepcopy(each)
                copy.set("id", f"{each.get('id')}0{at:03}")
                for child, value in zip(list(copy), several):
                    if value is not None:
                        child.attrib.pop("var_ref")
                        child.attrib.pop("var_check")
                        child.text = value
                    if compare.local(child.tag) == "filter":
                        copy.remove(child)
                objects.append(copy)
                asked[copy.get("id")] = each.get("id")
    for part in ("states", "variables"):
        for each in document.findall(f"{{*}}{part}"):
            document.remove(each)
    if not asked:
        return {}
    if not again(root, work, document):
        return {}
    lost = {}
    for key, each in read_objects(work + "/F.xml").items():
        lost.setdefault(asked[key], []).extend(each.messages)
    return lost


# Linux follows 40 links. Where it has to begin anew, because somebody else renames or mounts something, it counts on: now and then a chain of
# more than 20 leads nowhere, for either engine. What is not so every time is no difference between them.
LOOKS_MAX = 8


def case(arguments, root, seed):
    """Runs one case: what to print, how many objects, and what is explained."""
    differ = None
    for _ in range(LOOKS_MAX):
        lines, compared, agree, explained, may_be_other = look(arguments, root, seed)
        left = lines
        # Where an engine gave no answer, that says nothing of single objects.
        if not any(isinstance(line, str) for line in lines):
            always = {line[1].id for line in lines}
            differ = always if differ is None else differ & always
            left = [line for line in lines if line[1].id in differ]
        if not left or not may_be_other:
            break
    if len(left) < len(lines):
        explained["differs now and then"] += len(lines) - len(left)
    return left, compared, agree, explained


def look(arguments, root, seed):
    """One look at a case, and whether another one may say something else."""
    keep = os.path.realpath(arguments.keep) if arguments.keep else None
    lines, explained, agree = [], Counter(), 0
    with tempfile.TemporaryDirectory(prefix="mutate-") as work:
        command = [sys.executable, os.path.abspath(__file__), "--inside", root, work, str(seed), keep or ""]
        shared = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        done = subprocess.run(shared + command, capture_output=True, text=True, check=False)
        if keep:
            shutil.copytree(work, keep, dirs_exist_ok=True)
        if done.returncode != 0:
            return [f"seed {seed}: cannot be made: {done.stderr.strip()[-2000:]}"], 0, 0, explained, False
        with open(work + "/ended.json", encoding="utf-8") as file:
            ended = json.load(file)
        may_be_other = ended["is any chain long"]
        if ended["muster"] == ended["oscap"] == "timeout":
            return [], 0, 0, Counter({"both take longer than 20 s (cases)": 1}), False
        if ended["muster"] != 0:
            return [f"seed {seed}: muster ended with {ended['muster']}"], 0, 0, explained, may_be_other
        root = ET.parse(work + "/D.xml").getroot()
        if not is_whole(root, work + "/B.xml"):
            return [f"seed {seed}: muster's answer is not whole"], 0, 0, explained, may_be_other
        if ended["oscap"] != 0:
            reason = ended["why"]
            if not reason and ended["oscap"] == "timeout":
                reason = why_slow(ended["upwards"], read(work + "/B.xml")[0])
            if reason:
                return [], 0, 0, Counter({reason: 1}), False
            return [f"seed {seed}: oscap ended with {ended['oscap']}"], 0, 0, explained, may_be_other
        try:
            document = Document(work, ended["facts"], ended["lost"])
        except ET.ParseError as error:
            return [f"seed {seed}: an answer is no XML: {error}"], 0, 0, explained, may_be_other
    theirs, ours = document.theirs, document.ours
    uses = used_in(document.root)
    differ = set()
    asked = [Question(each, document) for each in document.objects.values()]
    for question in asked:
        their, our = theirs.get(question.id), ours.get(question.id)
        if their == our:
            agree += 1
            continue
        differ.add(question.id)
        reason = their and our and (why(question, their, our) or follows(question.id, uses, differ) or of_error(question.id, uses, ours))
        if reason:
            explained[reason] += 1
        else:
            lines.append((seed, question, their, our))
    return lines, len(asked), agree, explained, may_be_other


def follows(key, uses, differ):
    """Whether an object uses another one that is different: that one is told."""
    return "follows from another object" if used_by(key, uses) & differ else None


def of_error(key, uses, ours):
    """A variable of an object that is an error or not all: oscap takes the values that there are."""
    flags = {ours[used][0] for used in used_by(key, uses) if used in ours}
    is_it = ours[key][0] in ("error", "not collected", "incomplete") and flags & {"error", "not collected", "incomplete"}
    return "a variable of an object that is not complete" if is_it and not ours[key][1] else None


def used_in(root):
    """What each object and variable of a document refers to."""
    elements = [each for part in ("objects", "variables") for each in root.iterfind(f"{{*}}{part}/*")]
    return {each.get("id"): re.findall("oval:m:(?:obj|var):[0-9]+", ET.tostring(each, encoding="unicode")) for each in elements}


def used_by(key, uses):
    seen, left = {key}, list(uses[key])
    while left:
        used = left.pop()
        if used not in seen:
            seen.add(used)
            left += uses.get(used, [])
    return seen - {key}


def main():
    if sys.argv[1:2] == ["--inside"]:
        root, work, seed, keep = sys.argv[2:]
        return inside(root, work, int(seed), keep)
    parser = argparse.ArgumentParser(description="Compares two engines on broken endpoints.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--muster", default="target/release/muster")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep")
    arguments = parser.parse_args()
    if arguments.keep and arguments.cases != 1:
        parser.error("--keep is for one case")
    compared, agree, unexplained, reasons = 0, 0, 0, Counter()
    # What is not done by chance on a busy machine, and no more.
    not_done_max = max(1, arguments.cases // 100)
    with tempfile.TemporaryDirectory(prefix="mutate-root-") as root:
        make_root(root, os.path.realpath(arguments.muster))
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            seeds = range(arguments.seed, arguments.seed + arguments.cases)
            for at, (lines, asked, agreed, explained) in zip(seeds, pool.map(lambda seed: case(arguments, root, seed), seeds)):
                if explained[NOT_DONE]:
                    print(f"seed {at}: {NOT_DONE.removesuffix(' (cases)')}: not compared")
                compared, agree = compared + asked, agree + agreed
                reasons += explained
                unexplained += len(lines)
                for line in lines:
                    if isinstance(line, str):
                        print(line)
                    else:
                        seed, question, their, our = line
                        print(f"seed {seed}: {re.sub(r' xmlns:[a-z0-9]+=.[^ >]*', '', question.text)}")
                        compare.say(question.kind, their or (None, Counter()), our)
                sys.stdout.flush()
    counted = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    known = sum(count for reason, count in reasons.items() if not reason.endswith("(cases)"))
    print(f"{agree + known} of {compared} objects agree over {arguments.cases} cases ({known} explained: {counted})")
    if reasons[NOT_DONE] > not_done_max:
        print(f"{NOT_DONE}: {reasons[NOT_DONE]}, at most {not_done_max} may be")
    return 1 if unexplained or reasons[NOT_DONE] > not_done_max else 0


if __name__ == "__main__":
    sys.exit(main())
