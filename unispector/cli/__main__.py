"""`python -m unispector.cli`."""

import sys

from unispector.cli.main import main

sys.exit(main())
