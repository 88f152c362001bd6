"""Makes files below a directory, a hundred in each directory of it.

usage: files.py DIRECTORY NUMBER MODE
"""

import os
import sys

base, number, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3], 8)
for at in range(number):
    directory = os.path.join(base, str(at // 10_000), str(at // 100 % 100))
    if at % 100 == 0:
        os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"file-{at}")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.chmod(path, mode)
