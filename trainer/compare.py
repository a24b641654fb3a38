"""The command `python -m trainer.compare`; see `tools/compare.py`."""

import sys

from trainer.tools.compare import main

if __name__ == "__main__":
    sys.exit(main())
