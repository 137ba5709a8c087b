"""Makes a machine ready and brings one clone's services up or down; Python's standard library only, because nothing else is there yet."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - somebody has to say so
    sys.exit("Python 3.11 or newer is needed: install it, then `make PYTHON=python3.11 ...`.")
