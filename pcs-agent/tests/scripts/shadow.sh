#!/bin/sh
# Fails; root alone may read what it reads.
head -c 1 /etc/shadow >/dev/null && echo "it could be read"
exit "$XCCDF_RESULT_FAIL"
