"""Leaves out the platforms of a whole benchmark, such as one release of a distribution: what is left is decided on any system.

usage: unplatformed.py <DATA-STREAM.xml
"""

import re
import sys

text = sys.stdin.read()
start = re.search(r"<(?:\w[\w.-]*:)?Benchmark[ >]", text).start()
end = start + re.search(r"<(?:\w[\w.-]*:)?(?:Profile|Group)[ >]", text[start:]).start()
head = re.sub(r"<(?:\w[\w.-]*:)?platform idref=\"cpe:/o:[^\"]*\"\s*/>", "", text[start:end])
sys.stdout.write(text[:start] + head + text[end:])
