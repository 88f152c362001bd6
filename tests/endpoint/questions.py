"""Makes an OVAL document of objects about a small broken endpoint, from one `random.Random`."""

import re
from xml.sax.saxutils import escape, quoteattr

CASE = "/srv/case"
HEAD = (
    '<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5" xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5"'
    ' xmlns:unix="http://oval.mitre.org/XMLSchema/oval-definitions-5#unix" xmlns:ind="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent"'
    ' xmlns:linux="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<generator><oval:schema_version>5.11.1</oval:schema_version><oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator>"
)
PATTERNS = [
    r"^.*$", r"key=(.*)", r"^\s*PermitRootLogin\s+(\S+)", r"^[^#]*$", r"(?i)permitrootlogin\s+(no|yes)", r"a", r"x*", r"^$", r"^\s*$", r"(\w+)=(\w*)", r"[\s\S]*", r".",
    r"=(.*)$", r"\bkey\b", r"(a)|(b)", r"\r", r"^(?!#).*$", r"(a=\d)\s", r"\.", r"value\n", r"^key=.*\n.*$", r"é", r"\xe9", r"\x00", r"[^\x00-\x7f]+", r"\z", r"^", r"$",
    r"(?:)", r"\A.*", r"((a)(b)?)+", r"\d{2,}", r"<tag>", r"(?m)^a", r"(?s)a.*b", r"\Aa|key", r"[[:alpha:]]+=", r"(?<=key=)\w", r"\p{L}+=", r"(", r"[z-a]", r"a{2}", r"\Q=\E", r"(?P<n>key)", r"\h+", r"\R",
]  # fmt: skip
XPATHS = [
    "/r/a/text()", "/r/a/@x", "//a", "//text()", "//@*", "string(/r/a)", "count(//a)", "/r/a[1]/node()", "boolean(/r)", "//a[@x='1']/text()", "sum(//a)", "1 div 0", "name(/*)",
    "/r/a | /r/b", "//comment()", "//processing-instruction()", "/", ".", "r/a", "normalize-space(//a)", "/r/a[", "concat(//a,'x')", "//p:a/text()", "//a[last()]/text()", "string-length(//a)", "3.5", "0.1+0.2", "/r/a/@xml:lang", "local-name(//@*)",
]  # fmt: skip
SYSCTLS = ["kernel.ostype", "net.ipv4.ip_forward", "net.ipv4.conf.lo.rp_filter", "net.ipv4.conf.v0.1.rp_filter", "vm.swappiness", "kernel.none", "kernel", "net.ipv4.conf.all", "", "kernel/ostype", "net.ipv4.route.flush", "vm.compact_memory", "kernel.printk", "net.ipv4.tcp_rmem", "net.ipv6.conf.lo.stable_secret", ".", "kernel..ostype", "net.ipv4.conf.v0/1.rp_filter", "dev.cdrom.info", "kernel.core_pattern", "fs.binfmt_misc.status"]  # fmt: skip
SYSCTL_PATTERNS = [r"^kernel\.os", r"^net\.ipv4\.conf\.(lo|all)\..*", r"rp_filter$", r"^vm\.(swappiness|drop_caches|compact.*)$", r"^net\.ipv4\.route\.", r"^none", r"^kernel\.printk", r"v0", r"^net\.ipv6\.conf\.lo"] * 4 + ["("]


def is_xml(text):
    return all(each in "\t\n\r" or (" " <= each and not "\ud800" <= each <= "\udfff" and each not in "\ufffe\uffff") for each in text)


class Document:
    def __init__(self, r, names):
        self.r = r
        decoded = [(path.decode("utf-8", "surrogateescape"), kind) for path, kind in names]
        self.names = [(path, kind) for path, kind in decoded if is_xml(path)] or [("a", "file")]
        self.directories = [path for path, kind in self.names if kind == "directory"] + [""]
        self.objects, self.states, self.variables, self.made = [], [], [], []

    def text(self):
        parts = [HEAD, "<objects>", *self.objects, "</objects>"]
        if self.states:
            parts += ["<states>", *self.states, "</states>"]
        if self.variables:
            parts += ["<variables>", *self.variables, "</variables>"]
        return "".join([*parts, "</oval_definitions>"])

    def entity(self, name, value, operation="equals", datatype="string", more=""):
        attributes = "" if operation == "equals" and self.r.random() < 0.5 else f' operation="{operation}"'
        if datatype != "string":
            attributes += f' datatype="{datatype}"'
        return f"<{name}{attributes}{more}>{escape(value, {chr(13): '&#13;'})}</{name}>"

    def full(self, path):
        return CASE + "/" + path if path else CASE

    def some_file(self):
        return self.r.choice(self.names)[0]

    def name(self, path):
        return path.rsplit("/", 1)[-1]

    # Variables

    def variable(self, values=None, of=None, datatype="string"):
        key = f"oval:m:var:{len(self.variables) + 1}"
        head = f'id="{key}" version="1" datatype="{datatype}" comment="c"'
        if of is None:
            inner = "".join(f"<value>{escape(value, {chr(13): '&#13;'})}</value>" for value in values)
            self.variables.append(f"<constant_variable {head}>{inner}</constant_variable>")
            return key
        object_id, field = of
        inner = f'<object_component object_ref="{object_id}" item_field="{field}"/>'
        function = self.r.random()
        if function < 0.15:
            inner = f"<escape_regex>{inner}</escape_regex>"
        elif function < 0.25:
            inner = f'<regex_capture pattern="{escape(self.r.choice(["^(.*)$", "/([^/]*)$", "(a)", "^.*"]))}">{inner}</regex_capture>'
        elif function < 0.3:
            inner = f'<split delimiter="{self.r.choice(["/", ".", "a"])}">{inner}</split>'
        elif function < 0.35:
            inner = f'<substring substring_start="{self.r.choice([-1, 0, 1, 2, 9])}" substring_length="{self.r.choice([-1, 0, 3, 300])}">{inner}</substring>'
        self.variables.append(f"<local_variable {head}>{inner}</local_variable>")
        return key

    def by_variable(self, name, key, operation="equals", datatype="string"):
        # oscap knows no other check of an object's variables.
        check = "at least one"
        attributes = f' operation="{operation}"' if operation != "equals" else ""
        if datatype != "string":
            attributes += f' datatype="{datatype}"'
        return f'<{name}{attributes} var_ref="{key}"' + f' var_check="{check}"/>'

    # Where files are

    def behaviors(self, prefix, more=""):
        r, found = self.r, []
        if r.random() < 0.45:
            direction = r.choice(["down", "down", "down", "up", "none"])
            found.append(f'recurse_direction="{direction}"')
            if r.random() < 0.5:
                found.append(f'max_depth="{r.choice([-1, 0, 1, 2, 5])}"')
            if r.random() < 0.5:
                found.append(f'recurse="{r.choice(["directories", "symlinks", "symlinks and directories"])}"')
        if r.random() < 0.2:
            found.append(f'recurse_file_system="{r.choice(["all", "local", "defined"])}"')
        if more:
            found.append(more)
        return f"<{prefix}:behaviors {' '.join(found)}/>" if found else ""

    def filepath_pattern(self):
        r, path = self.r, self.full(self.some_file())
        return r.choice([
            f"^{CASE}/.*$", f"^{CASE}/[^/]+$", f"^{re.escape(path)}$", rf"^{CASE}/.*\.conf$", f"^{CASE}/(a|b|c).*", f"^{re.escape(path)}", rf"^{CASE}/[^/]*/[^/]*$", rf"^{CASE}/.*a", f"^{CASE}/.*\\s",
            f"^{CASE}.*/[a-z]+$", f"^{CASE}/?.*x", "^/srv/cas[e]/z", f"^{CASE}/\\w+", "^/srv/case/(" if r.random() < 0.2 else "^/srv/case/.", f"^{CASE}/{self.name(path)}" if is_xml(path) else "^/srv/case/a",
        ])  # fmt: skip

    def path_pattern(self):
        r = self.r
        directory = self.full(r.choice(self.directories))
        return r.choice([f"^{CASE}$", f"^{CASE}/.*$", f"^{CASE}", f"^{re.escape(directory)}$", rf"^{CASE}/[^/]+$", f"^{re.escape(directory)}", rf"^{CASE}(/.*)?$", rf"^{CASE}/.*[a-z]$", "^/srv/.*", "^/srv/c.se/?$"])

    def filename(self, prefix):
        r, name = self.r, f"{prefix}:filename"
        value = self.name(self.some_file())
        choice = r.random()
        if choice < 0.3:
            return self.entity(name, value)
        if choice < 0.65:
            return self.entity(name, r.choice([".*", "^.*$", r"\.conf$", r"^a", "^[a-z]+$", f"^{re.escape(value)}$", r"\s", r"[^\w.]", "^.{1,3}$", r"^\.", value if r.random() < 0.3 else "a", "", "(?i)^A", "é"]), "pattern match")
        if choice < 0.8:
            return self.entity(name, value, "not equal")
        if choice < 0.85:
            return self.by_variable(name, self.variable([value, self.name(self.some_file())]), r.choice(["equals", "equals", "not equal"]))
        if choice < 0.88:
            return self.entity(name, r.choice(["", ".", "..", "a/b", value.upper()]), r.choice(["equals", "case insensitive equals", "case insensitive not equal"]))
        return self.entity(name, ".*", "pattern match")

    def where(self, prefix, is_nil_allowed=True, more=""):
        """Behaviors and entities that say which files."""
        r = self.r
        if r.random() < 0.4:
            behaviors = f"<{prefix}:behaviors {more}/>" if more else ""
            choice, name = r.random(), f"{prefix}:filepath"
            if choice < 0.4:
                path = self.full(self.some_file())
                return behaviors + self.entity(name, r.choice([path] * 6 + [path + "/", path.replace("/", "//"), path + "/.", "relative", "", "/", CASE + "/./a", CASE + "/../case/a"]))
            if choice < 0.8:
                return behaviors + self.entity(name, self.filepath_pattern(), "pattern match")
            if choice < 0.9 and self.made:
                return behaviors + self.by_variable(name, self.variable(of=(r.choice(self.made), "filepath")))
            values = [self.full(self.some_file()) for _ in range(r.randint(1, 3))]
            if choice < 0.95:
                return behaviors + self.by_variable(name, self.variable([f"^{re.escape(value)}$" for value in values]), "pattern match")
            return behaviors + self.by_variable(name, self.variable(values))
        behaviors, name, choice = self.behaviors(prefix, more), f"{prefix}:path", r.random()
        if choice < 0.6:
            path = self.full(r.choice(self.directories + [self.some_file()]))
            path = self.entity(name, r.choice([path] * 12 + [CASE, CASE, CASE, path + "/", path + "//", path.replace("/srv", "//srv"), path + "/.", path + "/..", "relative", "", "/srv"]))
        elif choice < 0.85:
            path = self.entity(name, self.path_pattern(), "pattern match")
        elif choice < 0.9:
            path = self.by_variable(name, self.variable([self.full(r.choice(self.directories)) for _ in range(r.randint(1, 3))]))
        elif choice < 0.95 and self.made:
            path = self.by_variable(name, self.variable(of=(r.choice(self.made), "path")))
        else:
            path = self.entity(name, self.full(r.choice(self.directories)))
        if is_nil_allowed and r.random() < 0.2:
            return behaviors + path + f'<{prefix}:filename xsi:nil="true"/>'
        return behaviors + path + self.filename(prefix)

    # Filters

    def filters(self, kind):
        found = ""
        while self.r.random() < 0.3:
            state = self.state(kind)
            if state is None:
                break
            action = self.r.choice(["", ' action="include"', ' action="exclude"'])
            found += f"<filter{action}>{state}</filter>"
        return found

    def state(self, kind):
        r = self.r
        number = lambda name, values: self.entity(name, str(r.choice(values)), r.choice(["equals", "not equal", "greater than", "less than or equal", "less than"]), "int")
        truth = lambda name: self.entity(name, r.choice(["true", "false", "1", "0"]), "equals", "boolean")
        pattern = lambda name, values: self.entity(name, r.choice(values), "pattern match")
        if kind == "unix:file":
            # In the order of the schema.
            all_of = [
                lambda: pattern("unix:filepath", [r"\.conf$", "^/srv/case/a", "case"]), lambda: pattern("unix:path", ["case$", "/a"]), lambda: pattern("unix:filename", ["^a", r"\.", ".*"]),
                lambda: self.entity("unix:type", r.choice(["regular", "directory", "symbolic link", "fifo", "socket"]), r.choice(["equals", "not equal"])),
                lambda: number("unix:group_id", [0, 1, 65534]), lambda: number("unix:user_id", [0, 1000, 2147483648]), lambda: number("unix:size", [0, 10, 1000]),
                lambda: truth("unix:suid"), lambda: truth("unix:sticky"), lambda: truth("unix:uread"), lambda: truth("unix:owrite"), lambda: truth("unix:oexec"), lambda: truth("unix:has_extended_acl"),
            ]  # fmt: skip
        elif kind == "ind:textfilecontent54":
            all_of = [
                lambda: pattern("ind:filename", ["^a", r"\.conf"]), lambda: number("ind:instance", [1, 2, 5]),
                lambda: pattern("ind:text", ["key", "^.{3,}$", "a"]), lambda: self.entity("ind:subexpression", r.choice(["no", "value", ""]), r.choice(["equals", "not equal"])),
            ]  # fmt: skip
        elif kind == "unix:password":
            all_of = [lambda: pattern("unix:username", ["^r", "o"]), lambda: number("unix:user_id", [0, 1000, -1]), lambda: pattern("unix:login_shell", ["nologin", "^$"])]
        elif kind == "unix:shadow":
            all_of = [lambda: pattern("unix:username", ["^r"]), lambda: pattern("unix:password", [r"^[!*]", r"^\$"]), lambda: number("unix:chg_lst", [0, 100, -1])]
        elif kind == "linux:dpkginfo":
            all_of = [lambda: pattern("linux:arch", ["amd64|all"]), lambda: pattern("linux:version", ["^1"])]
        else:
            return None
        chosen = sorted(r.sample(range(len(all_of)), r.randint(1, min(2, len(all_of)))))
        key = f"oval:m:ste:{len(self.states) + 1}"
        operator = r.choice(["", ' operator="OR"', ' operator="AND"', ' operator="ONE"'])
        prefix, name = kind.split(":")
        self.states.append(f'<{prefix}:{name}_state id="{key}" version="1"{operator}>{"".join(all_of[at]() for at in chosen)}</{prefix}:{name}_state>')
        return key

    # Objects

    def object(self, kind, inner):
        key = f"oval:m:obj:{len(self.objects) + 1}"
        self.objects.append(f'<{kind}_object id="{key}" version="1">{inner}</{kind}_object>')
        return key

    def file(self):
        key = self.object("unix:file", self.where("unix") + self.filters("unix:file"))
        self.made.append(key)

    def text_file(self):
        r, flags = self.r, []
        for name in ("ignore_case", "multiline", "singleline"):
            if r.random() < 0.2:
                flags.append(f'{name}="{r.choice(["true", "false", "1", "0"])}"')
        where = self.where("ind", False, " ".join(flags))
        pattern = r.choice(PATTERNS)
        if r.random() < 0.1:
            pattern = self.by_variable("ind:pattern", self.variable([pattern, r.choice(PATTERNS)]), "pattern match")
        else:
            pattern = self.entity("ind:pattern", pattern, "pattern match")
        instance = self.entity("ind:instance", str(r.choice([1, 1, 2, 3, 0, -1])), r.choice(["equals", "greater than or equal", "greater than or equal", "less than", "not equal"]), "int")
        key = self.object("ind:textfilecontent54", where + pattern + instance + self.filters("ind:textfilecontent54"))
        self.made.append(key)

    def symlink(self):
        links = [path for path, kind in self.names if kind == "link"] or [self.some_file()]
        if self.r.random() < 0.15:
            inner = self.by_variable("unix:filepath", self.variable([self.full(self.r.choice(links)), self.full(self.some_file())]))
        elif self.r.random() < 0.1 and self.made:
            inner = self.by_variable("unix:filepath", self.variable(of=(self.r.choice(self.made), "filepath")))
        else:
            path = self.full(self.r.choice([self.r.choice(links), self.r.choice(links), self.some_file()]))
            inner = self.entity("unix:filepath", self.r.choice([path] * 8 + [path + "/", path.replace("/", "//"), "relative", ""]))
        self.object("unix:symlink", inner)

    def account(self, kind):
        r, name = self.r, f"{kind}"
        value = r.choice(["root", "user", "bob", "none", "x y", "René", "+", "", "a.b", "u$", "#no"])
        operation = r.choice(["equals", "equals", "pattern match", "pattern match", "not equal", "case insensitive equals"])
        if operation == "pattern match":
            value = r.choice([".*", "^u", "^$", "o", "[^a-z]"] * 4 + ["("])
        if r.random() < 0.1:
            inner = self.by_variable("unix:username", self.variable([value, "user"]), operation)
        else:
            inner = self.entity("unix:username", value, operation)
        self.object(f"unix:{name}", inner + self.filters(f"unix:{name}"))

    def package(self):
        r = self.r
        value = r.choice(["bash", "libc6", "libc6:i386", "libc6:amd64", "a+b", "x.y", "ssh", "virtual", "none", "", "lib", "bash:all", "bash:any"])
        operation = r.choice(["equals", "equals", "pattern match", "pattern match", "not equal", "case insensitive equals"])
        if operation == "pattern match":
            value = r.choice([".*", "^lib", "^[a-z]", "6", r"\+", "^x.y$"] * 4 + ["("])
        if r.random() < 0.1:
            inner = self.by_variable("linux:name", self.variable([value, "bash"]), operation)
        else:
            inner = self.entity("linux:name", value, operation)
        self.object("linux:dpkginfo", inner + self.filters("linux:dpkginfo"))

    def sysctl(self):
        r = self.r
        if r.random() < 0.4:
            inner = self.entity("unix:name", r.choice(SYSCTL_PATTERNS), "pattern match")
        elif r.random() < 0.15:
            inner = self.by_variable("unix:name", self.variable([r.choice(SYSCTLS), r.choice(SYSCTLS)]))
        else:
            inner = self.entity("unix:name", r.choice(SYSCTLS))
        self.object("unix:sysctl", inner)

    def hash(self):
        r = self.r
        value, operation = r.choice([("MD5", "equals"), ("SHA-256", "equals"), ("SHA-512", "equals"), ("MD5", "not equal"), ("^SHA-2", "pattern match"), ("SHA-1", "equals"), ("SHA-224", "equals")])
        self.made.append(self.object("ind:filehash58", self.where("ind", False) + self.entity("ind:hash_type", value, operation)))

    def xml_file(self):
        self.object("ind:xmlfilecontent", self.where("ind", False) + self.entity("ind:xpath", self.r.choice(XPATHS)))

    def attribute(self):
        r = self.r
        value, operation = r.choice([("user.a", "equals"), (".*", "pattern match"), ("^user", "pattern match"), ("user.a", "not equal"), ("user.é", "equals"), ("user.none", "equals"), ("user.a b", "equals"), ("security.x", "equals")])
        self.object("unix:fileextendedattribute", self.where("unix") + self.entity("unix:attribute_name", value, operation))

    def set(self):
        r = self.r
        files = [key for key, text in zip(self.made, (self.objects[int(key.rsplit(":", 1)[-1]) - 1] for key in self.made)) if text.startswith("<unix:file_object")]
        if not files:
            return
        inner = "".join(f"<object_reference>{r.choice(files)}</object_reference>" for _ in range(r.randint(1, 2)))
        operator = r.choice(["UNION", "INTERSECTION", "COMPLEMENT"])
        self.object("unix:file", f'<set set_operator="{operator}">{inner}{self.filters("unix:file")}</set>')

    def value(self):
        if self.made:
            field = self.r.choice(["filepath", "filename", "path"])
            key = self.variable(of=(self.r.choice(self.made), field))
            self.object("ind:variable", f"<ind:var_ref>{key}</ind:var_ref>")


def document(r, names):
    made = Document(r, names)
    for make in (made.file, made.file, made.text_file, made.text_file, made.file, made.symlink, made.symlink, made.hash, made.xml_file, made.attribute, made.text_file):
        make()
    for _ in range(2):
        made.account("password")
        made.account("shadow")
        made.package()
    made.sysctl()
    made.set()
    made.set()
    made.value()
    return made.text()
