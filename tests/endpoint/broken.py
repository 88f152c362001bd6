"""Makes a small broken endpoint: files below one directory, and accounts and packages below /etc and /var of a root.

Everything comes from one `random.Random`: the same seed makes the same endpoint.
"""

import os
import socket
import stat
import struct
import subprocess

# Where the directory is for those who look at it.
SEEN_AT = b"/srv/case"
PLAIN = ["a", "b.conf", "c.txt", "sshd_config", "x.xml", "y.xml", "z", "00-first", "Makefile", "d.conf"]
ODD = [
    b"a b", b" lead", b"trail ", b"new\nline", b"tab\tname", b"ctl\x01x", b"del\x7f", b"bad\xff\xfe", b"caf\xe9", b"cr\rx",
    "\u00e9t\u00e9".encode(), "\u65e5\u672c".encode(), b"a+b", b"a(b", b"a[b]", b"a*", b"a?b", b"^a$", b"a|b", b"a\\b", b"a{2}", b"$HOME",
    b"\"q'", b"&amp;", b"<x>", b"-rf", b"..a", b".hidden", b"...", b"%41", b"a:b", b"L" * 255, b"\\n", b"#x", b"~", "\U0001f600".encode(),
]  # fmt: skip
MODES = [0o644, 0o600, 0o755, 0o777, 0o000, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o444, 0o640, 0o222]
IDS = [0, 0, 0, 1, 1000, 65534, 12345, 2147483648, 4294967294]
LINES = [
    b"PermitRootLogin no", b"  PermitRootLogin   yes  ", b"#PermitRootLogin no", b"permitrootlogin NO", b"key=value", b"key = value ; x",
    b"", b" ", b"\t", b"a=1 b=2 a=3", b"[section]", b"key=", b"=value", "\u00fcmlaut=\u00e9".encode(), b"<tag>&amp;</tag>", b"net.ipv4.ip_forward = 1",
    b"x\x01y=\x02", b"end\\", b"key=value\x0b", b"aaaa", b"abcabc", b"\x1b[31mred", "\u2028u2028".encode(), b"key=a]]>b",
]  # fmt: skip


def content(r):
    lines = [r.choice(LINES) for _ in range(r.randint(0, 12))]
    kind = r.choice(["plain"] * 8 + ["crlf", "cr", "open", "bad", "nul", "bom", "utf16", "huge", "empty", "cut", "lastnul", "many", "over"])
    # A pattern that matches everywhere takes both engines minutes there.
    if kind in ("huge", "over") and r.random() > 0.15:
        kind = "plain"
    newline = {"crlf": b"\r\n", "cr": b"\r"}.get(kind, b"\n")
    if kind == "huge":
        lines.insert(r.randint(0, len(lines)), b"key=" + r.choice([b"x", b"ab ", "\u00e9".encode()]) * 100_000)
    if kind == "over":
        lines.insert(r.randint(0, len(lines)), b"key=" + b"y" * r.choice([8191, 8192, 65535, 65536, 65537]))
    if kind == "many":
        lines = [b"key=%d" % at for at in range(r.choice([100, 300]))]
    if kind == "bad":
        lines.insert(r.randint(0, len(lines)), r.choice([b"key=\xff", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"]))
    if kind == "nul":
        lines.insert(r.randint(0, len(lines)), r.choice([b"key=\0value", b"\0", b"key\0"]))
    text = newline.join(lines) + newline
    if kind == "open":
        text = text.rstrip(b"\n")
    if kind == "cut":
        text += b"key=\xc3"
    if kind == "lastnul":
        text += b"\0"
    if kind == "bom":
        text = b"\xef\xbb\xbf" + text
    if kind == "utf16":
        text = text.decode("utf-8", "replace").encode("utf-16")
    return b"" if kind == "empty" else text


def xml(r):
    return r.choice([
        b"<r><a x='1'>one<b>two</b>three</a><a x='2'/></r>", b"<?xml version='1.0'?>\n<r>\r\n <a x=' 1\t2 '>x&#13;y</a>\n</r>\n",
        b"<r xmlns='urn:d' xmlns:p='urn:p'><p:a p:x='1'>t</p:a><a x='2'>u</a></r>", b"<r><a>", b"", b"<r/>", b"\xef\xbb\xbf<r><a x='b'>o</a></r>",
        b"<?xml version='1.0' encoding='ISO-8859-1'?><r><a x='\xe9'>\xe9</a></r>", b"<r><a x='&lt;&amp;'><![CDATA[<c>]]>d</a><!-- n --><?p i?></r>",
        b"<r><a x=''></a><a> </a></r>", b"<r><a>\xff</a></r>", b"<r><a x='1' x='2'/></r>", b"<r><a>1</a></r>junk", b" <r><a>1</a></r>",
        b"<r><a xml:lang='en'>\xc3\xa9</a></r>", b"<r><a>&#x1F600;</a></r>", b"<r><a>&#1;</a></r>", b"<r><p:a>1</p:a></r>", b"<r><a>1.50</a><a>2</a></r>",
        b"<r>" + b"<a>" * 300 + b"x" + b"</a>" * 300 + b"</r>", b"<r><a>" + b"t" * 100_000 + b"</a></r>", b"<r><a>x</a></r>\0", b"<r><a>&nbsp;</a></r>",
    ])  # fmt: skip


class Tree:
    """Files below a directory. `names` has what is there: (path below the directory, kind)."""

    def __init__(self, r, base):
        self.r, self.base, self.names = r, os.fsencode(base), []
        self.directories = [b""]
        self.has_fifo = self.is_any_large = self.is_any_chain_long = False
        for _ in range(r.randint(1, 7)):
            self.directory(self.child())
        if r.random() < 0.04:
            deep = self.child(b"deep")
            for _ in range(r.choice([60, 130, 255, 256, 300])):
                self.directory(deep)
                deep += b"/d"
        for _ in range(r.randint(4, 14)):
            self.file(self.child())
        for _ in range(r.randint(0, 6)):
            self.link(self.child())
        if r.random() < 0.25:
            self.special(self.child())
        if r.random() < 0.03:
            path = self.child(b"sparse")
            self.file(path, b"key=value\n")
            os.truncate(self.at(path), 100 * 1024 * 1024)
            self.is_any_large = True
        self.is_much = self.bytes_by_all_names() > 1_500
        self.owners()

    def at(self, path):
        return self.base + b"/" + path if path else self.base

    def child(self, name=None):
        """A new path in a directory that is there."""
        for _ in range(50):
            directory = self.r.choice(self.directories)
            chosen = name or (self.r.choice(ODD) if self.r.random() < 0.3 else self.r.choice(PLAIN).encode())
            path = directory + b"/" + chosen if directory else chosen
            if not os.path.lexists(self.at(path)):
                return path
            name = None
        return b"last-%d" % len(self.names)

    def directory(self, path):
        os.mkdir(self.at(path))
        self.directories.append(path)
        self.names.append((path, "directory"))

    def file(self, path, text=None):
        if text is None:
            text = xml(self.r) if path.endswith(b".xml") else content(self.r)
        with open(self.at(path), "wb") as file:
            file.write(text)
        self.is_any_large |= len(text) > 1_500
        self.names.append((path, "file"))

    def bytes_by_all_names(self):
        """How much there is to read for those who read a file by each of its names. A chain of links has many."""
        found = 0
        for directory, _, names in os.walk(self.base):
            for at in (os.path.join(directory, name) for name in names):
                # Asked once: of a long chain of links Linux says now that it is a file, and now that there are too many.
                try:
                    state = os.stat(at)
                except OSError:
                    continue
                if stat.S_ISREG(state.st_mode):
                    found += state.st_size
        return found

    def link(self, path):
        r = self.r
        some = r.choice(self.names)[0] if self.names else b"a"
        name = path.rsplit(b"/", 1)[-1]
        up = b"../" * path.count(b"/")
        kind = r.choice(["relative", "absolute", "dangling", "loop", "pair", "parent", "chain", "long", "root", "hard", "slash", "double", "dot", "notdir"])
        if kind == "hard":
            if files := [each for each, what in self.names if what == "file"]:
                os.link(self.at(r.choice(files)), self.at(path))
                self.names.append((path, "file"))
            return
        if kind in ("chain", "long", "pair"):
            many = {"chain": r.randint(2, 8), "long": r.choice([39, 40, 41, 45]), "pair": 2}[kind]
            for at in range(1, many):
                step = path + b"~%d" % at
                if len(name) > 250 or os.path.lexists(self.at(step)):
                    return
                last = name if kind == "pair" else up + some
                os.symlink(name + b"~%d" % (at + 1) if at + 1 < many else last, self.at(step))
                if many < 10:
                    self.names.append((step, "link"))
            os.symlink(name + b"~1", self.at(path))
            self.is_any_chain_long |= many > 20
        else:
            target = {
                "relative": up + some, "absolute": SEEN_AT + b"/" + some, "dangling": b"nowhere", "loop": name, "parent": b"..", "root": SEEN_AT,
                "slash": up + some + b"/", "double": b".//" + up + some, "dot": b".", "notdir": up + some + b"/below",
            }[kind]  # fmt: skip
            os.symlink(target, self.at(path))
        self.names.append((path, "link"))

    def special(self, path):
        kind = self.r.choice(["fifo", "socket", "socket", "null", "block", "block"])
        if kind == "fifo":
            os.mkfifo(self.at(path))
            self.has_fifo = True
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                directory, name = os.path.split(self.at(path))
                here = os.getcwd()
                os.chdir(directory)
                try:
                    bound.bind(name[:100])
                    path = path[: len(path) - len(name)] + name[:100]
                finally:
                    os.chdir(here)
        else:
            device = os.makedev(1, 3) if kind == "null" else os.makedev(7, 250)
            os.mknod(self.at(path), 0o600 | (stat.S_IFCHR if kind == "null" else stat.S_IFBLK), device)
        self.names.append((path, "special"))

    def owners(self):
        r = self.r
        for path, kind in self.names:
            at = self.at(path)
            if r.random() < 0.3:
                os.chown(at, r.choice(IDS), r.choice(IDS), follow_symlinks=False)
            if kind == "link":
                continue
            if r.random() < 0.4:
                os.chmod(at, r.choice(MODES))
            if r.random() < 0.08:
                rules = r.choice(["u:12345:rwx", "g:1:r", "m::r", "u:0:---,m::rwx"] + (["d:u:1:rwx"] if kind == "directory" else []))
                subprocess.run([b"setfacl", b"-m", rules.encode(), b"--", at], check=False, stderr=subprocess.DEVNULL)
            if kind != "special" and r.random() < 0.15:
                for _ in range(r.randint(1, 3)):
                    name = r.choice([b"user.a", b"user.b", b"trusted.t", b"user.\xff", "user.\u00e9".encode(), b"user.a b", b"security.x", b"user." + b"n" * 200])
                    value = r.choice([b"", b"text", b"text\0", b"a\0b", b"\xff\xfe", b"\0\0", b"v" * 4000, "\u00e9".encode(), b"line\nline", b"\x01", b" sp "])
                    os.setxattr(at, name, value)
            if r.random() < 0.2:
                os.utime(at, (r.choice([0, 1, 2**31, 2**33, -5]), r.choice([0, 1, 2**31, 2**33, -5])))


HASHES = [
    "x", "*", "!", "!!", "", "!$6$salt$hash", "$1$salt$hash", "$2$10$h", "$2a$10$h", "$2b$10$h", "$2y$10$h", "$5$rounds=5000$s$h", "$6$s$h", "$y$j9T$s$h",
    "$7$s$h", "$gy$j9T$s$h", "$md5$s$h", "$md5,rounds=9$s$h", "$sha1$4$s$h", "$3$$h", "_J9..rasmBYk8r9AiWNc", "abJnggxhB/yWI", "*LK*", "NP", "$", "$$", "$6", "!*", "{SSHA}x",
]  # fmt: skip
NUMBERS = ["0", "1", "1000", "1000", "65534", "-1", "-2", "", "4294967295", "4294967296", "99999999999", "2147483648", "abc", "12x", "0x10", " 7", "7 ", "+5", "007"]
NAMES = ["root", "daemon", "user", "user", "bob", "a.b", "Ren\u00e9", "x y", "very" * 20, "u$", "-dash", "1000", "#no", "a\tb", "", "nobody"]


def encoded(r, lines):
    newline = r.choice(["\n"] * 12 + ["\r\n"])
    text = newline.join(lines).encode("utf-8", "surrogateescape")
    return text + (b"" if r.random() < 0.08 else newline.encode())


def odd_line(r, line):
    """Now and then, something else than a line of the file."""
    if r.random() > 0.15:
        return line
    return r.choice([
        "", " ", "# comment", "  " + line, "+", "+::::::", "+@net", "-bob", "+bob::::::", "::::::", line + ":more", line.rsplit(":", 1)[0], line.rsplit(":", 2)[0],
        "garbage", ":" + line, line + " ", line[: len(line) // 2], line + "x" * r.choice([1000, 5000, 100_000]), "caf\udce9:x:5:5:caf\udce9:/:/bin/sh", "a\x01b:x:6:6::/:", "\ufeff" + line,
        line.replace(":", "::", 1), "a\0b:x:7:7::/:/bin/sh",
    ])  # fmt: skip


def passwd(r):
    lines = ["root:x:0:0:root:/root:/bin/bash"]
    for _ in range(r.randint(0, 8)):
        is_odd = r.random() < 0.3
        number = (lambda: r.choice(NUMBERS)) if is_odd else (lambda: str(r.randint(1, 70000)))
        gecos = r.choice(["", "Name,,,", "\u00e9", "a<b>&c", "  "])
        fields = [r.choice(NAMES), r.choice(HASHES + ["x"] * 10), number(), number(), gecos, r.choice(["/", "/home/u", "", "relative"]), r.choice(["/bin/sh", "", "/usr/sbin/nologin", "/bin/sh "])]
        lines.append(odd_line(r, ":".join(fields)))
    return encoded(r, lines)


def shadow(r):
    lines = ["root:*:19000:0:99999:7:::"]
    for _ in range(r.randint(0, 8)):
        is_odd = r.random() < 0.3
        number = (lambda: r.choice(NUMBERS)) if is_odd else (lambda: str(r.randint(0, 20000)))
        fields = [r.choice(NAMES), r.choice(HASHES)] + [r.choice([number(), ""]) for _ in range(7)]
        lines.append(odd_line(r, ":".join(fields)))
    return encoded(r, lines)


STATES = ["install ok installed"] * 10 + [
    "install ok half-configured", "install ok half-installed", "install ok unpacked", "install ok triggers-awaited", "install ok triggers-pending", "deinstall ok config-files",
    "purge ok not-installed", "hold ok installed", "install reinstreq half-installed", "deinstall ok installed", "unknown ok not-installed",
]  # fmt: skip
VERSIONS = ["1.0-1", "1:2.3-4-5", "7", "0:1", "2.0~rc1-1", "1.2+dfsg-3+deb12u1", "1:0", "10:1-1-1-1", "0", "1.0-", "1.0:2", "A.b", "2024.01.01", "1:1.0-1~bpo12+1", "00:1-0"]
PACKAGES = ["bash", "libc6", "libc6", "zlib1g", "a+b", "x.y", "0ad", "python3", "ssh", "lib"]


def dpkg_status(r):
    parts = []
    for _ in range(r.randint(0, 9)):
        fields = ["Package: " + r.choice(PACKAGES), "Status: " + r.choice(STATES), "Architecture: " + r.choice(["amd64"] * 6 + ["all", "i386", "arm64", "any"])]
        fields.append("Version: " + r.choice(VERSIONS[:5] if r.random() < 0.6 else VERSIONS))
        if r.random() < 0.3:
            fields.insert(1, "Description: text\n folded line\n .\n Version: 9")
        if r.random() < 0.2:
            fields.append("Multi-Arch: " + r.choice(["same", "foreign", "allowed"]))
        if r.random() < 0.2:
            fields.append("Depends: libc6 (>= 2), bash:any, x.y | ssh")
        if r.random() < 0.15:
            fields.append("Provides: " + r.choice(["ssh", "virtual", "lib (= 1)"]))
        if r.random() < 0.1:
            change = r.choice(["no version", "no status", "blank", "folded", "twice"])
            if change.startswith("no "):
                word = {"no version": "Version", "no status": "Status"}[change]
                fields = [field for field in fields if not field.startswith(word)]
            elif change == "blank":
                fields = [field.replace(": ", ":   \t") + " " for field in fields]
            elif change == "folded":
                fields.append("X-Folded:\n line")
            else:
                fields.append("Version: 9-9")
        parts.append("\n".join(fields))
    # Nothing that dpkg itself would not read.
    between = r.choice(["\n\n", "\n\n\n"])
    return (between.join(parts) + r.choice(["\n\n", "\n", "", "\n\n\n"])).encode()


def system(r, root):
    """Accounts and packages, each now and then missing, empty, or not a file."""
    for path, make in (("etc/passwd", passwd), ("etc/shadow", shadow), ("var/lib/dpkg/status", dpkg_status)):
        at, text = os.path.join(root, path), make(r)
        choice = r.random()
        if choice < 0.02:
            continue
        if choice < 0.03:
            os.symlink("nowhere", at)
        elif choice < 0.04 and path != "var/lib/dpkg/status":
            os.mkdir(at)
        else:
            with open(at, "wb") as file:
                file.write(b"" if choice < 0.06 else text)
            if choice > 0.98:
                os.rename(at, at + "-")
                os.symlink(os.path.basename(at) + "-", at)
    os.symlink("../proc/self/mounts", os.path.join(root, "etc/mtab"))
    for path, text in (("etc/group", "root:x:0:\n"), ("etc/os-release", 'ID=debian\nNAME=Debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')):
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write(text)
    if r.random() < 0.1:
        os.makedirs(os.path.join(root, "var/log"), exist_ok=True)
        with open(os.path.join(root, "var/log/lastlog"), "wb") as file:
            for _ in range(r.randint(0, 4)):
                file.write(struct.pack("<i288x", r.choice([0, 1700000000, -1, 5])))
            file.write(b"xx" * r.randint(0, 1))
