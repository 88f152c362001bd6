#!/bin/sh
# On nobody's list.
exit "$XCCDF_RESULT_PASS"
