"""How long OpenMP's threads spin while they wait; to be imported before torch.

Beside another busy process, waiting in a loop makes a step up to 20 times as long; not to spin at
all doubles it on a quiet machine. So they spin a little. Whoever has set it otherwise keeps that.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
