"""`python -m datassay`: the `datassay` command."""

import sys

from datassay.cli import main

sys.exit(main())
