"""The seeds of this method: 31 bits, as servers take them."""

from __future__ import annotations

from functools import partial

from methods import seeds

derived_seed = partial(seeds.derived_seed, bits=31)
