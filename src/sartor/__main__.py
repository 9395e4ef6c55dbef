"""`python -m sartor` is `sartor`."""

from __future__ import annotations

import sys

from sartor.cli import main

sys.exit(main())
