"""Names the OVAL document of a split data stream `oval.xml`, and writes the default values of its variables beside it.

usage: variables.py DIRECTORY
"""

import pathlib
import sys
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

XCCDF = "{http://checklists.nist.gov/xccdf/1.2}"
OVAL = "{http://oval.mitre.org/XMLSchema/oval-definitions-5}"
HEAD = (
    '<oval_variables xmlns="http://oval.mitre.org/XMLSchema/oval-variables-5"'
    ' xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5"><generator>'
    "<oval:schema_version>5.11</oval:schema_version><oval:timestamp>2026-01-01T00:00:00</oval:timestamp>"
    "</generator><variables>"
)

directory = pathlib.Path(sys.argv[1])
roots = {path: ET.parse(path).getroot() for path in directory.glob("*.xml")}
benchmark = next(root for root in roots.values() if root.tag == XCCDF + "Benchmark")
documents = [path for path, root in roots.items() if root.tag == OVAL + "oval_definitions"]
document = max(documents, key=lambda path: path.stat().st_size)

defaults = {}
for value in benchmark.iter(XCCDF + "Value"):
    plain = [each.text or "" for each in value.findall(XCCDF + "value") if not each.get("selector")]
    if plain:
        defaults[value.get("id")] = plain[0]
exports = {each.get("export-name"): each.get("value-id") for each in benchmark.iter(XCCDF + "check-export")}

text = HEAD
for variable in roots[document].iter(OVAL + "external_variable"):
    value = defaults.get(exports.get(variable.get("id")))
    if value is not None:
        text += '<variable id=%s datatype=%s comment="default">' % tuple(map(quoteattr, (variable.get("id"), variable.get("datatype"))))
        text += "<value>%s</value></variable>" % escape(value)
(directory / "variables.xml").write_text(text + "</variables></oval_variables>")
document.rename(directory / "oval.xml")
