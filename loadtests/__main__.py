"""`python -m loadtests` is `chatlab`."""

import sys

from loadtests.cli import main

sys.exit(main())
