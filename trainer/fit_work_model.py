"""The command `python -m trainer.fit_work_model`; see `tools/fit_work_model.py`."""

import sys

from trainer.tools.fit_work_model import main

if __name__ == "__main__":
    sys.exit(main())
