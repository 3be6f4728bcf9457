"""`python -m trm_nb.cli`, the same as `trm-nb`."""

import sys

from trm_nb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
