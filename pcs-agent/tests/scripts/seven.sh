#!/bin/sh
# Passes where the benchmark wants seven.
echo "the benchmark wants $XCCDF_VALUE_wanted, a $XCCDF_TYPE_wanted" '<&>'
[ "$XCCDF_VALUE_wanted" = 7 ] && exit "$XCCDF_RESULT_PASS"
exit "$XCCDF_RESULT_FAIL"
