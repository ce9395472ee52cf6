"""``python -m ntkrun``."""

import os
import sys

# Python looks there first of all with -m, and a received run may have a torch.py beside its files. Modules of one's own
# are found later on, as with the command ``ntkrun``.
if sys.path[:1] in ([""], [os.getcwd()]) and not sys.flags.safe_path:
    del sys.path[0]

from ntkrun.cli.main import main

if __name__ == "__main__":
    main()
