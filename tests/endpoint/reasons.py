"""What both engines say of a broken endpoint, and the reasons for which they may say different things.

Each reason stands in docs/oscap-differences.md, and is as narrow as it can be: it explains what it knows and nothing beside it.
"""

import hashlib
import os
import re
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter

import compare

# What XML 1.0 cannot say, and what is no UTF-8: oscap writes them all the same.
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# The words that stand for them.
NO_XML_WORD = re.compile(r"\{#[0-9a-f]{1,4}\}")
CONTROL_WORD = re.compile(r"\{#(?!dc[89a-f])[0-9a-f]{1,4}\}")
# Bytes that are no UTF-8, as bytes, or what they are in Latin 1. No other name or line of a broken endpoint has those.
NO_UTF8 = re.compile(r"\{#dc[0-9a-f]{2}\}|(?<=bad)\xff|(?<=caf)\xe9")
# A byte that is no UTF-8, in a name.
SURROGATE = re.compile("[\ud800-\udfff]")
NO_REFERENCE = re.compile(r"&#(x[0-9a-fA-F]+|[0-9]+);")


def as_xml(path):
    """A file that may be no XML: what cannot be read becomes a word."""
    with open(path, "rb") as file:
        text = file.read().decode("utf-8", "surrogateescape")
    plain = NO_XML.sub(lambda found: f"{{#{ord(found[0]):x}}}", text)

    def reference(found):
        number = int(found[1][1:], 16) if found[1][0] == "x" else int(found[1])
        return f"{{#{number:x}}}" if NO_XML.match(chr(number)) else found[0]

    return NO_REFERENCE.sub(reference, plain)


class Told:
    """What an engine says of an object beside its items."""

    def __init__(self, element):
        self.flag = element.get("flag")
        self.messages = [child.text or "" for child in element if compare.local(child.tag) == "message"]
        self.values = {}
        for child in element:
            if compare.local(child.tag) == "variable_value":
                self.values.setdefault(child.get("variable_id"), []).append(child.text or "")


def read_objects(path):
    try:
        root = ET.fromstring(as_xml(path))
    except ET.ParseError:
        return {}
    return {each.get("id"): Told(each) for each in root.iter() if compare.local(each.tag) == "object" and each.get("flag")}


def read(path):
    """The objects of a file that may be no XML, and what is said of each."""
    with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as file:
        file.write(as_xml(path))
        file.flush()
        return compare.objects(file.name), read_objects(path)


class Document:
    """What two engines were asked, and what they say."""

    def __init__(self, work, facts, lost):
        self.root = ET.parse(work + "/D.xml").getroot()
        self.theirs, self.they_tell = read(work + "/A.xml")
        self.ours, self.we_tell = read(work + "/B.xml")
        self.facts, self.lost = facts, lost
        self.objects = {each.get("id"): each for each in self.root.find("{*}objects")}
        self.variables = {each.get("id"): each for each in self.root.iterfind("{*}variables/*")}


class Question:
    """An object of a document, with what the reasons below ask about it."""

    def __init__(self, element, document):
        self.element, self.id = element, element.get("id")
        self.kind = compare.local(element.tag).removesuffix("_object")
        self.text = ET.tostring(element, encoding="unicode")
        self.document, self.facts = document, document.facts
        self.messages = document.we_tell[self.id].messages if self.id in document.we_tell else []
        self.their_messages = document.they_tell[self.id].messages + document.lost.get(self.id, []) if self.id in document.they_tell else []
        self.entities = {compare.local(child.tag): child for child in element}

    def value(self, name):
        child = self.entities.get(name)
        return None if child is None else child.text or ""

    def operation(self, name):
        child = self.entities.get(name)
        return None if child is None else child.get("operation", "equals")

    def values_of(self, key):
        """Of a constant variable."""
        variable = self.document.variables.get(key)
        is_constant = variable is not None and compare.local(variable.tag) == "constant_variable"
        return [value.text or "" for value in variable] if is_constant else []

    def filters(self):
        """The states of its filters."""
        named = {child.text for child in self.element if compare.local(child.tag) == "filter"}
        return [state for state in self.document.root.iterfind("{*}states/*") if state.get("id") in named]

    def behavior(self, name):
        behaviors = self.entities.get("behaviors")
        return None if behaviors is None else behaviors.get(name)

    def says(self, text):
        return any(text in message for message in self.messages)


def with_text(found, change):
    """The same flag and items with each value changed."""
    flag, items = found
    changed = Counter()
    for (item, status, entities), count in items.items():
        changed[(item, status, tuple(sorted((n, d, s, change(n, v)) for n, d, s, v in entities)))] += count
    return flag, changed


def without(found, is_left_out):
    return found[0], Counter({item: count for item, count in found[1].items() if not is_left_out(item)})


def values(items, name):
    return [value for item in items for entity, _, _, value in item[2] if entity == name]


# Each reason takes (question, theirs, ours) and gives both back without what it explains.


def broken_pattern(question, theirs, ours):
    is_it = question.says("is not a regular expression") and (theirs[0], ours[0]) == ("does not exist", "error")
    return (theirs, (theirs[0], ours[1])) if is_it and not ours[1] else (theirs, ours)


def broken_pattern_of_several(question, theirs, ours):
    """A variable's values, of which one is no pattern: oscap goes by the others. What is looked for in files is an error for both."""
    asked = [child for child in question.entities.values() if child.get("operation") == "pattern match" and child.get("var_ref")]
    if not question.says("is not a regular expression") or ours != ("error", Counter()) or len(asked) != 1:
        return theirs, ours
    name = child_name(asked[0])
    patterns = question.values_of(asked[0].get("var_ref"))
    others = [pattern for pattern in patterns if not question.says(f"the pattern `{pattern}` is not a regular expression")]
    found = values(theirs[1], name)
    is_of_others = lambda value: value in others if name == "pattern" else any(is_match(other, value) for other in others)
    is_it = len(others) < len(patterns) and len(found) == len(theirs[1]) and all(map(is_of_others, found))
    return (theirs, theirs) if is_it and theirs[0] == ("error" if name == "pattern" else "complete") else (theirs, ours)


def is_match(pattern, text):
    try:
        return re.search(pattern, text, re.S) is not None
    except re.error:
        return False


def controls(question, theirs, ours):
    """XML has no control characters: oscap leaves them out, Muster writes a question mark."""
    if not any("?" in value for item in ours[1] - theirs[1] for _, _, _, value in item[2]):
        return theirs, ours
    shown = lambda _, text: CONTROL_WORD.sub("", text).replace("?", "")
    return with_text(theirs, shown), with_text(ours, shown)


def no_utf8(question, theirs, ours):
    """In values that are told all the same, such as lines of passwd. oscap writes the bytes, or what they are in Latin 1."""
    if not any("\ufffd" in value for item in ours[1] for _, _, _, value in item[2]):
        return theirs, ours
    shown = lambda _, text: NO_UTF8.sub("\ufffd", text)
    return with_text(theirs, shown), with_text(ours, shown)


def unnamed(question, theirs, ours):
    """Only what has a name that is no UTF-8, and what is below it, is lacking, and Muster says so."""
    if not question.says("is not UTF-8 and cannot be reported") or ours[0] not in ("incomplete", "not collected", "error"):
        return theirs, ours
    is_told = question.says("an attribute's name")
    # What an attribute's value is, is no reason for its name to be left out.
    is_name = lambda n: n != "value" or question.kind != "fileextendedattribute"
    is_bad = lambda item: any(is_name(n) and (NO_UTF8.search(v) or "\ufffd" in v) or (is_told and n == "attribute_name" and v == "user.\xff") for n, _, _, v in item[2])
    left = without((theirs[0], theirs[1] - ours[1]), is_bad)[1] + (theirs[1] & ours[1])
    return (theirs[0], left), (theirs[0], ours[1])


def deep(question, theirs, ours):
    # What else is an error goes before that.
    if not question.says("directories deeper than") or ours[0] not in ("incomplete", "error", theirs[0]):
        return theirs, ours
    is_deep = lambda item: any(n == "path" and v.count("/") > 250 for n, _, _, v in item[2])
    return without(theirs, is_deep), without(("error" if ours[0] == "error" else theirs[0], ours[1]), is_deep)


def other_operation(question, theirs, ours):
    """oscap 1.3.7 looks for a package of that very name, whatever the operation is."""
    if question.kind != "dpkginfo" or question.operation("name") in (None, "equals"):
        return theirs, ours
    names = [name.split(":")[0] for name in question.values_of(question.entities["name"].get("var_ref")) or [question.value("name")]]
    is_it = sum(theirs[1].values()) <= len(names) and all(value in names for value in values(theirs[1], "name"))
    return (theirs, theirs) if is_it and ours[0] != "error" else (theirs, ours)


def empty_match(question, theirs, ours):
    """After an empty match oscap goes on one byte later. Inside a character, and behind a NUL byte, that is its error."""
    errors = set(re.findall(r"with error (-\d+)", " ".join(question.their_messages)))
    if question.kind != "textfilecontent54" or not errors & {"-11", "-24"} or errors - {"-10", "-11", "-24"} or theirs[1] - ours[1]:
        return theirs, ours
    return theirs, (ours[0] if errors & {"-10"} else theirs[0], theirs[1])


def match_limit(question, theirs, ours):
    """A pattern that takes too many steps: PCRE 1 gives up where PCRE 2 goes on."""
    is_it = question.their_messages and all(re.search(r"with error -(8|21|27)\b", each) for each in question.their_messages)
    return (theirs, (theirs[0], theirs[1])) if is_it and not theirs[1] - ours[1] else (theirs, ours)


def long_value(question, theirs, ours):
    """Muster cuts a value at 64 KiB: oscap's begins with it, but for the characters that XML does not have."""
    shown = lambda text: NO_XML_WORD.sub("", text).replace("?", "").rstrip("\ufffd")
    # In the place of a character that was cut there is one of three bytes.
    is_cut = lambda text: 65_533 <= len(text.encode("utf-8", "replace")) <= 65_538
    is_begun = lambda their, our: their[:3] == our[:3] and (shown(their[3]) == shown(our[3]) or (is_cut(our[3]) and shown(their[3]).startswith(shown(our[3]))))
    is_same = lambda their, our: their[:2] == our[:2] and len(their[2]) == len(our[2]) and all(map(is_begun, their[2], our[2]))
    changed = Counter(theirs[1])
    for our in ours[1] - theirs[1]:
        if any(is_cut(value) for _, _, _, value in our[2]):
            whole = next((their for their in changed - ours[1] if is_same(their, our)), None)
            if whole is not None:
                changed += Counter({our: changed.pop(whole)})
    return (theirs[0], changed), ours


def large_file(question, theirs, ours):
    large = {message.removesuffix(": larger than 64 MiB") for message in question.messages if message.endswith(": larger than 64 MiB")}
    if not large or ours[0] != "error":
        return theirs, ours
    return without(theirs, lambda item: large.issuperset(values([item], "filepath") or [None])), (theirs[0], ours[1])


def binary(question, theirs, ours):
    """A value with NUL bytes, or with others that are no text: oscap cuts it at the first NUL byte."""
    if question.kind != "fileextendedattribute":
        return theirs, ours
    # Names may have characters that are told in other ways.
    shown_name = lambda text: CONTROL_WORD.sub("", text).replace("?", "")
    plain = lambda item: (item[0], item[1], tuple((n, d, s, shown_name(v)) for n, d, s, v in item[2] if n != "value"))
    binaries = {plain(item) for item in ours[1] if any(n == "value" and d == "binary" for n, d, _, _ in item[2])}

    def shown(found):
        changed = Counter()
        for item, count in found[1].items():
            changed[plain(item) if plain(item) in binaries else item] += count
        return found[0], changed

    return shown(theirs), shown(ours)


def no_file(question, theirs, ours):
    """Muster reads the expression before it looks for files; oscap only where there is one."""
    is_it = question.kind == "xmlfilecontent" and (theirs[0], ours[0]) == ("does not exist", "error") and question.says("XPath")
    return (theirs, theirs) if is_it and not ours[1] else (theirs, ours)


def no_integer(question, theirs, ours):
    """oscap has integers only: it cuts a number at its point, and what is no number is -2147483648."""
    if question.kind != "xmlfilecontent" or not any(d == "float" for item in ours[1] for _, d, _, _ in item[2]):
        return theirs, ours

    def shown(found):
        changed = Counter()
        for (item, status, entities), count in found[1].items():
            kept = tuple(("value_of", "int", *whole(each)) if each[0] == "value_of" and each[1] == "float" else each for each in entities)
            changed[(item, "exists" if ("value_of", "int", "exists", "-2147483648") in kept else status, kept)] += count
        return found[0], changed

    changed = shown(ours)
    return theirs, (theirs[0] if changed[1] == theirs[1] else changed[0], changed[1])


def whole(entity):
    _, _, status, value = entity
    return ("exists", "-2147483648") if status == "error" else (status, str(int(float(value))))


def before_1970(question, theirs, ours):
    shown = lambda name, text: str(int(text) % 2**64) if name == "m_time" and re.fullmatch(r"-?\d+", text) else text
    return with_text(theirs, shown), with_text(ours, shown)


def wrong_start(question, theirs, ours):
    """Where oscap begins to look: it takes a class, `+`, `{` and `|` for letters, and does not end an escape at a letter. A pattern without
    any special character is for it the path of what is there: it finds that and what is below it, and nothing else that begins so. If that
    is a link to a directory that it is in, only oscap begins there, and goes down that directory once more."""
    child = question.entities.get("filepath", question.entities.get("path"))
    patterns = [] if child is None else [child.text] if child.text else question.values_of(child.get("var_ref"))
    if child is None or child.get("operation") != "pattern match":
        return theirs, ours
    if len(patterns) == 1 and (left := cycle_at_start(question, patterns[0], child_name(child), theirs, ours)):
        return theirs, left
    wrong = [pattern for pattern in patterns if start_of(pattern, "^*?$.([", True) > start_of(pattern, "^*?$.([+{|", False)]
    if not wrong:
        return theirs, ours
    if len(patterns) == 1:
        start = re.sub(r"\\(.)", r"\1", wrong[0].removeprefix("^")[: start_of(wrong[0], "^*?$.([", True)], flags=re.S)
        is_found = lambda item: any(path == start or path.startswith(start + "/") for path in values([item], child_name(child)))
        left = without(ours, lambda item: not is_found(item))
        if start in question.facts["links up"]:
            return without(theirs, is_found), without(left, is_found)
        if theirs[1] - ours[1]:
            return theirs, ours
        # What only Muster finds may be an error.
        is_other_flag = any(item[1] == "error" for item in ours[1] - left[1]) or theirs[0] == "does not exist"
        return (theirs, theirs) if is_other_flag and left[1] == theirs[1] else (theirs, left)
    if theirs[1] - ours[1]:
        return theirs, ours
    # What is asked for in that way may be found all the same, on the way of another pattern.
    is_there = lambda item: any(re.search(pattern, path, re.S) for pattern in wrong for path in values([item], child_name(child)))
    left = without((theirs[0], ours[1] - theirs[1]), is_there)[1]
    return theirs, (theirs[0] if not left else ours[0], theirs[1] + left)


def cycle_at_start(question, pattern, name, theirs, ours):
    """A pattern without special characters leads to a path, and a walk that begins there knows of no directory above it. For oscap an escape
    that is no special character's, such as `\\-`, makes one of the next that is escaped: it begins above it, and a link that leads back to
    where it began is a cycle. Without what is behind such links, if that is the whole difference."""
    is_plain = pattern.startswith("^") and re.fullmatch(r"(?:[^\\^*?$.(\[+{|]|\\[^a-zA-Z0-9])+", pattern[1:], re.S)
    at = start_of(pattern, "^*?$.([", True)
    if not is_plain or at == len(pattern) - 1 or theirs[1] - ours[1] or not are_flags_plain(theirs, ours):
        return None
    unescaped = lambda text: re.sub(r"\\(.)", r"\1", text, flags=re.S)
    start, ours_start = unescaped(pattern[1:][:at]), unescaped(pattern[1:]).rsplit("/", 1)[0]
    is_between = lambda to: (to + "/").startswith(start + "/") and (ours_start + "/").startswith(to + "/")
    links = [link for link, to in question.facts["links up"].items() if link.startswith(ours_start + "/") and is_between(to)]
    is_behind = lambda item: any(path.startswith(link + "/") for link in links for path in values([item], name))
    left = without(ours, is_behind)[1]
    return theirs if left == theirs[1] and left != ours[1] else None


def child_name(child):
    return compare.local(child.tag)


def start_of(pattern, special, is_theirs):
    """How long the plain beginning of a pattern is, to the slash before the first special character."""
    rest, at, is_escaped = pattern.removeprefix("^"), 0, False
    while at < len(rest):
        if rest[at] == "\\":
            if not is_theirs and rest[at + 1 : at + 2].isalpha():
                break
            is_escaped = not is_escaped
        elif rest[at] in special:
            if not is_escaped:
                break
            is_escaped = False
        elif not is_theirs:
            is_escaped = False
        at += 1
    # Without any, oscap takes the whole for the path of what is there, though more may follow.
    return at if at == len(rest) and is_theirs else max(rest.rfind("/", 0, at), 0)


def after_link(question, theirs, ours):
    """Only links are followed; oscap also enters the next directory after a link in the order on disk, if the link leads to none."""
    is_it = question.behavior("recurse") == "symlinks" and question.behavior("recurse_direction") == "down"
    # Where it cannot read what it finds there, there is a message and no item.
    start = question.value("path")
    unread = re.compile(rf"Can't parse '{re.escape(start or '')}/.+/[^/]+'\.", re.S)
    # For a pattern, so is a name that is no UTF-8 there, without a message.
    is_unnamed = question.facts["is any unnamed after a link"] and question.operation("filename") == "pattern match" and not question.their_messages
    is_unnamed = is_unnamed and (theirs, ours) == (("error", Counter()), ("does not exist", Counter()))
    is_unread = start and (theirs[0], ours[0]) == ("error", "does not exist") and question.their_messages and all(map(unread.fullmatch, question.their_messages))
    return (theirs, theirs) if is_it and (theirs[1] or is_unread or is_unnamed) and not ours[1] - theirs[1] else (theirs, ours)


def after_link_and_empty_match(question, theirs, ours):
    """Both reasons in one object: oscap finds more, in a directory after a link, and less in a file that it names, behind an empty match."""
    failed = [re.fullmatch(r"Regular expression pattern match failed in file (.+) with error (-\d+)\.", message, re.S) for message in question.their_messages]
    if question.behavior("recurse") != "symlinks" or question.behavior("recurse_direction") != "down" or not all(failed) or (theirs[0], ours[0]) != ("error", "complete"):
        return theirs, ours
    is_below = lambda path: "/../" not in path and any(os.path.normpath(path).startswith(at + "/") for at in question.facts["after links"])
    # What oscap says of a file that it alone has looked at is no reason for anything else.
    failed_in = {found[1]: found[2] for found in failed if not is_below(found[1])}
    extra, lacking = values(theirs[1] - ours[1], "filepath"), values(ours[1] - theirs[1], "filepath")
    is_it = extra and lacking and all(map(is_below, extra)) and failed_in.keys() == set(lacking) and set(failed_in.values()) <= {"-11", "-24"}
    return (theirs, theirs) if is_it else (theirs, ours)


def no_values(question, theirs, ours):
    """A function of no values: oscap computes it of an empty text."""
    is_it = question.kind == "variable" and ours == ("does not exist", Counter()) and question.says("no item has a")
    return (theirs, theirs) if is_it and sum(theirs[1].values()) == 1 else (theirs, ours)


def pattern_of_no_text(question, theirs, ours):
    """A pattern on a name with bytes that are no UTF-8: for oscap it is an error, and such a name is not found. A filter's lets it pass."""
    asked = [name for name, child in question.entities.items() if child.get("operation") == "pattern match"]
    is_bad = lambda item: any("\ufffd" in value for name in asked for value in values([item], name))
    extra = ours[1] - theirs[1]
    if passed := theirs[1] - ours[1]:
        filtered = {child_name(child) for state in question.filters() for child in state if child.get("operation") == "pattern match"}
        is_passed = lambda item: any("\ufffd" in value or NO_UTF8.search(value) for name in filtered for value in values([item], name))
        return (theirs, theirs) if not extra and all(map(is_passed, passed)) and are_flags_plain(theirs, ours) else (theirs, ours)
    is_it = extra and all(is_bad(item) for item in extra) and not theirs[1] - ours[1] and are_flags_plain(theirs, ours)
    return (theirs, theirs) if is_it else (theirs, ours)


def are_flags_plain(*found):
    """Whether the flags say only if there are items."""
    return all(flag == ("complete" if items else "does not exist") for flag, items in found)


def of_any(question, theirs, ours):
    """For oscap a package of the architecture `any` is the first one of its name that the file names before it, if there is one."""
    if question.kind != "dpkginfo" or not are_flags_plain(theirs, ours):
        return theirs, ours
    evrs = {(name, evr) for name, version in question.facts["of any"] if version for evr in (version, "0:" + version)}
    evr_of = lambda item: tuple(values([item], "name") + values([item], "evr"))
    extra = [evr_of(item) for item in theirs[1] - ours[1]]
    lacking = [evr_of(item) for item in ours[1] - theirs[1]]
    is_it = extra and set(extra) <= evrs and {each[0] for each in lacking} <= {each[0] for each in extra}
    return (theirs, theirs) if is_it else (theirs, ours)


def repeated_end(question, theirs, ours):
    """A last line that begins with blanks and has no newline: behind it, the C library leaves as many of its last bytes as there are blanks."""
    name, end = question.facts["repeated"].get(question.kind, (None, None))
    extra, lacking = list((theirs[1] - ours[1]).elements()), list((ours[1] - theirs[1]).elements())
    if name is None or len(extra) != 1 or len(lacking) != 1 or values(extra + lacking, "username") != [name, name]:
        return theirs, ours
    (*their_head, their_values), (*our_head, our_values) = extra[0], lacking[0]
    with_end = [tuple(sorted([*our_values[:at], (n, d, s, v + end), *our_values[at + 1 :]])) for at, (n, d, s, v) in enumerate(our_values)]
    return (theirs, theirs) if theirs[0] == ours[0] and their_head == our_head and their_values in with_end else (theirs, ours)


def nul_after_document(question, theirs, ours):
    """For oscap a document ends at a NUL byte behind it."""
    # Muster says it of so many files and no more.
    is_said = question.says("a character that XML does not allow") or (theirs[1] and set(values(theirs[1] - ours[1], "filepath")) <= set(question.facts["end at NUL"]))
    is_it = question.kind == "xmlfilecontent" and is_said and theirs[0] in ("complete", "error")
    return (theirs, theirs) if is_it and not ours[1] - theirs[1] else (theirs, ours)


NOTHING = {hashlib.new(name).hexdigest() for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")}


def device(question, theirs, ours):
    """oscap opens the broken endpoints' devices, all of which are /dev/null, and hashes what it reads."""
    is_of_nothing = lambda item: question.kind == "filehash58" and any(name == "hash" and value in NOTHING for name, _, _, value in item[2])
    extra = theirs[1] - ours[1]
    if not extra or not all(is_of_nothing(item) for item in extra):
        return theirs, ours
    return (theirs[0] if theirs[1] - extra else "does not exist", theirs[1] - extra), ours


def dot_and_defined(question, theirs, ours):
    """oscap looks at the beginning of a path twice where it asks for its device. The second time `.` and `..` are no directories for fts(3)."""
    path = question.entities.get("path")
    if path is None or question.operation("path") != "equals" or question.behavior("recurse_file_system") != "defined":
        return theirs, ours
    asked = [path.text or ""] if path.get("var_ref") is None else question.document.they_tell[question.id].values.get(path.get("var_ref"), [])
    dots = [each for each in asked if each.rsplit("/", 1)[-1] in (".", "..")]
    if len(dots) == len(asked):
        return (theirs, theirs) if dots and theirs == ("does not exist", Counter()) else (theirs, ours)
    is_below = lambda item: any(found == dot or found.startswith(dot + "/") for dot in dots for found in values([item], "path"))
    return theirs, (ours[0], without(ours, is_below)[1] + (ours[1] & theirs[1]) if dots and not theirs[1] - ours[1] else ours[1])


def two_slashes(question, theirs, ours):
    """Upwards from what begins with two slashes oscap goes on at `//`, and it has that name, until it is as deep as it may go."""
    path = question.entities.get("path")
    if path is None or question.operation("path") != "equals" or not (path.text or "").startswith("//") or question.behavior("recurse_direction") != "up":
        return theirs, ours
    shown = lambda name, text: "/" if name == "path" and text == "//" else text
    return (theirs, theirs) if with_text(theirs, shown) == ours else (theirs, ours)


def same_version(question, theirs, ours):
    """A package that is there twice, with versions that are the same for dpkg, such as `0:1` and `00:1-0`: which of them is told, is by chance."""
    extra, lacking = list((theirs[1] - ours[1]).elements()), list((ours[1] - theirs[1]).elements())
    if question.kind != "dpkginfo" or len(extra) != 1 or len(lacking) != 1 or theirs[0] != ours[0]:
        return theirs, ours
    named = [[values([item], name) for name in ("name", "arch")] for item in extra + lacking]
    versions = sorted(value for item in extra + lacking for value in values([item], "evr"))
    is_same = [*named[0][0], *named[0][1], *versions] in question.facts["same versions"]
    return (theirs, theirs) if is_same and named[0] == named[1] else (theirs, ours)


def operands(question):
    """A set's operator, and the objects it is made of."""
    child = question.entities.get("set")
    named = [] if child is None else [each.text for each in child if child_name(each) == "object_reference"]
    return (None if child is None else child.get("set_operator")), named


def wrong_set(question, theirs, ours):
    """oscap goes along two lists of items as if both were in one order and had each item once. So of what is in both by its own account,
    COMPLEMENT leaves some, and INTERSECTION loses some. A filter of the set says nothing of that: it lets pass what either of both tells."""
    operator, named = operands(question)
    if operator not in ("COMPLEMENT", "INTERSECTION") or len(named) != 2 or not are_flags_plain(theirs, ours):
        return theirs, ours
    more, less = (theirs, ours) if operator == "COMPLEMENT" else (ours, theirs)
    left, right = (question.document.theirs[name][1] for name in named)
    is_it = not less[1] - more[1] and all(item in left and item in right for item in more[1] - less[1])
    return (theirs, theirs) if is_it else (theirs, ours)


def set_of_nothing(question, theirs, ours):
    """An object whose variable has no value does not exist; a set of it is an error for oscap."""
    _, named = operands(question)
    failed = [re.fullmatch(r"probe_set_eval: evaluation failed: OID=(\S+)", message) for message in question.their_messages]
    if theirs != ("error", Counter()) or not failed or not all(failed):
        return theirs, ours
    document = question.document
    is_of_no_value = lambda key: key in named and (document.theirs[key], document.ours[key]) == (("does not exist", Counter()),) * 2 and any(
        "problem processing referenced variable" in message for message in document.they_tell[key].messages
    )  # fmt: skip
    return (theirs, theirs) if all(is_of_no_value(found[1]) for found in failed) else (theirs, ours)


def short_text(question, theirs, ours):
    """A part of a text that ends before it is an error for both. oscap goes on without the variable's values: the item that would have them has
    none, and an object that asks with them does not exist."""
    if ours != ("error", Counter()) or not question.says("` ends before character "):
        return theirs, ours
    is_empty = question.kind == "variable" and theirs[0] == "complete" and [item[1:] for item in theirs[1].elements()] == [("exists", ())]
    is_unasked = theirs == ("does not exist", Counter()) and any("problem processing referenced variable" in message for message in question.their_messages)
    return (theirs, theirs) if is_empty or is_unasked else (theirs, ours)


# As docs/oscap-differences.md has them. What is behind something else is asked without what that explains.
EXPLAINED = {
    "a pattern that is none": broken_pattern,
    "one of several patterns that is none": broken_pattern_of_several,
    "a binary value": binary,
    "a name that is no UTF-8": unnamed,
    "a value longer than 64 KiB": long_value,
    "characters that XML does not have": controls,
    "bytes that are no UTF-8": no_utf8,
    "deeper than 256 directories": deep,
    "an operation on dpkginfo's name": other_operation,
    "after an empty match": empty_match,
    "too many steps": match_limit,
    "a file larger than 64 MiB": large_file,
    "an XPath that is none, and no file": no_file,
    "a number that is not whole, or none": no_integer,
    "before 1970": before_1970,
    "where oscap begins to look": wrong_start,
    "a device": device,
    "a directory after a link on disk": after_link,
    "a directory after a link on disk, and after an empty match": after_link_and_empty_match,
    "a function of no values": no_values,
    "a pattern on what is no UTF-8": pattern_of_no_text,
    "a NUL byte after a document": nul_after_document,
    "a package of the architecture `any`": of_any,
    "the end of a last line, twice": repeated_end,
    "`.` and `..` on the file system they are on": dot_and_defined,
    "a set that is none of its own objects": wrong_set,
    "a set of an object without values": set_of_nothing,
    "a part of a text that is too short": short_text,
    "upwards from two slashes": two_slashes,
    "a package twice, with versions that are the same": same_version,
}


def why(question, theirs, ours):
    """The reasons that are together the whole difference."""
    found = []
    for reason, take in EXPLAINED.items():
        before = theirs == ours
        changed = take(question, theirs, ours)
        if changed != (theirs, ours):
            found.append(reason)
            theirs, ours = changed
        if not before and theirs == ours:
            return found[-1]
    return None
