"""`python -m datassay`: the `datassay` command."""

import sys

from datassay._cli.main import main

sys.exit(main())
