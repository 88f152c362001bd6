"""Makes small broken endpoints, asks two SCAP engines about each, and compares what they collect.

usage: mutate.py [--seed N] [--cases N] [--muster PROGRAM] [--jobs N] [--keep DIR]

Needs root, `oscap`, and a file system that can be mounted. Each case has a seed: the first one is --seed, then one more each
time. A case runs in mount, network and process namespaces of its own, below a root that is made for it: a read-only copy of
the engines, and /srv, /etc and /var in memory. /proc/sys is read-only. Nothing reaches the machine.

Prints each difference that is not explained below with its seed; `--seed N --cases 1 --keep DIR` runs it again and leaves the
document, what both engines say, and the files in DIR. The last line says how many objects agree. Exit 1 where a difference is
not explained.
"""

import argparse
import concurrent.futures
import ctypes
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

import broken
import compare
import questions

SECONDS_MAX = 20
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
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


def enter(root, work, keep):
    """Makes the root what a case may see. Only this process and its children see it so."""
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    mount(root, root, flags=MS_BIND)
    mount(None, root, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    for name in ("srv", "etc", "var", "tmp", "dev"):
        mount("none", f"{root}/{name}", "tmpfs", data="size=300m,mode=755")
    mount("proc", root + "/proc", "proc", MS_NOSUID)
    mount(root + "/proc/sys", root + "/proc/sys", flags=MS_BIND)
    mount(None, root + "/proc/sys", flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    mount(work, root + "/work", flags=MS_BIND)
    for name, minor in (("null", 3), ("urandom", 9)):
        os.mknod(f"{root}/dev/{name}", 0o666 | 0o020000, os.makedev(1, minor))
    os.makedirs(root + "/srv/case")
    os.makedirs(root + "/var/lib/dpkg")
    if keep:
        os.makedirs(keep + "/tree", exist_ok=True)
        mount(keep + "/tree", root + "/srv/case", flags=MS_BIND)
    # Without an address oscap collects nothing. And an interface with a dot in its name.
    for words in ("set lo up", "add v0.1 type veth peer name v1"):
        subprocess.run(["ip", "link", *words.split()], check=False, stderr=subprocess.DEVNULL)


def ask(root, name, arguments):
    """How a program ended: its exit code, or a word."""
    def inside():
        os.chroot(root)
        os.chdir("/")

    with open(f"{root}/work/{name}.log", "wb") as log:
        try:
            ended = subprocess.run(
                arguments, preexec_fn=inside, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=SECONDS_MAX, check=False,
                env={"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "timeout"
    return ended.returncode


def inside(root, work, seed, keep):
    """One case, in namespaces of its own."""
    os.umask(0)
    enter(root, work, keep)
    r = random.Random(seed)
    broken.system(r, root)
    tree = broken.Tree(r, root + "/srv/case")
    with open(work + "/D.xml", "w", encoding="utf-8") as file:
        file.write(questions.document(r, tree.names))
    if keep:
        shutil.copytree(root + "/etc", keep + "/etc", symlinks=True, dirs_exist_ok=True)
        shutil.copytree(root + "/var", keep + "/var", symlinks=True, dirs_exist_ok=True)
    ended = {}
    for name, program, syschar in (("oscap", "/usr/bin/oscap", "A"), ("muster", "/usr/bin/muster", "B")):
        ended[name] = ask(root, name, [program] + (["scap"] if name == "muster" else []) + ["oval", "collect", "--skip-valid", "--syschar", f"/work/{syschar}.xml", "/work/D.xml"])
    with open(work + "/ended.json", "w", encoding="utf-8") as file:
        json.dump({**ended, "fifo": tree.has_fifo}, file)


# What XML 1.0 cannot say, and what is no UTF-8: oscap writes them all the same.
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
NO_REFERENCE = re.compile(r"&#(x[0-9a-fA-F]+|[0-9]+);")


def read(path):
    """The objects of a file that may be no XML: what cannot be read becomes a word."""
    with open(path, "rb") as file:
        text = file.read().decode("utf-8", "surrogateescape")
    plain = NO_XML.sub(lambda found: f"{{{ord(found[0]):x}}}", text)

    def reference(found):
        number = int(found[1][1:], 16) if found[1][0] == "x" else int(found[1])
        return f"{{{number:x}}}" if NO_XML.match(chr(number)) else found[0]

    plain = NO_REFERENCE.sub(reference, plain)
    with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as file:
        file.write(plain)
        file.flush()
        messages = {
            each.get("id"): [child.text or "" for child in each if compare.local(child.tag) == "message"]
            for each in ET.parse(file.name).getroot().iter() if compare.local(each.tag) == "object" and each.get("flag")
        }  # fmt: skip
        return compare.objects(file.name), messages


class Question:
    """An object of a document, for the reasons below."""

    def __init__(self, element, endpoint):
        self.kind = compare.local(element.tag).removesuffix("_object")
        self.text = ET.tostring(element, encoding="unicode")
        self.endpoint = endpoint
        self.entities = {compare.local(child.tag): child for child in element}

    def value(self, name):
        child = self.entities.get(name)
        return None if child is None else child.text or ""

    def operation(self, name):
        child = self.entities.get(name)
        return None if child is None else child.get("operation", "equals")


# Reasons: name -> whether it is the whole difference of (question, theirs, ours).
EXPLAINED = {}


def why(question, theirs, ours):
    for reason, is_so in EXPLAINED.items():
        if is_so(question, theirs, ours):
            return reason
    return None


def case(arguments, root, seed):
    """Runs one case: what to print, how many objects, and what is explained."""
    keep = os.path.realpath(arguments.keep) if arguments.keep else None
    lines, explained, agree = [], Counter(), 0
    with tempfile.TemporaryDirectory(prefix="mutate-") as work:
        command = [sys.executable, os.path.abspath(__file__), "--inside", root, work, str(seed), keep or ""]
        shared = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        done = subprocess.run(shared + command, capture_output=True, text=True, check=False)
        if keep:
            shutil.copytree(work, keep, dirs_exist_ok=True)
        if done.returncode != 0:
            return [f"seed {seed}: cannot be made: {done.stderr.strip()[-2000:]}"], 0, 0, explained
        with open(work + "/ended.json", encoding="utf-8") as file:
            ended = json.load(file)
        asked = {each.get("id"): Question(each, ended) for each in ET.parse(work + "/D.xml").getroot().find("{*}objects")}
        if ended["muster"] != 0:
            return [f"seed {seed}: muster ended with {ended['muster']}"], len(asked), 0, explained
        if ended["oscap"] != 0:
            if ended["oscap"] == "timeout" and ended["fifo"]:
                return [], len(asked), 0, Counter({"oscap waits for a FIFO": len(asked)})
            return [f"seed {seed}: oscap ended with {ended['oscap']}"], len(asked), 0, explained
        try:
            theirs, _ = read(work + "/A.xml")
        except ET.ParseError as error:
            return [f"seed {seed}: oscap's answer is no XML: {error}"], len(asked), 0, explained
        ours, messages = read(work + "/B.xml")
    for key, question in asked.items():
        their, our = theirs.get(key), ours.get(key)
        if their == our:
            agree += 1
            continue
        reason = their and our and why(question, their, our)
        if reason:
            explained[reason] += 1
            continue
        lines.append((seed, question, their, our))
    return lines, len(asked), agree, explained


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
    with tempfile.TemporaryDirectory(prefix="mutate-root-") as root:
        make_root(root, os.path.realpath(arguments.muster))
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            seeds = range(arguments.seed, arguments.seed + arguments.cases)
            for lines, asked, agreed, explained in pool.map(lambda seed: case(arguments, root, seed), seeds):
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
    print(f"{agree + sum(reasons.values())} of {compared} objects agree over {arguments.cases} cases ({sum(reasons.values())} explained: {counted})")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
