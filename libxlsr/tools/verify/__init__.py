"""Checks an image against everything that is known of its format, and says what is wrong.

``findings`` lists every finding, ``checks`` makes them, ``verifier`` runs a walk and sums it up.
"""

from __future__ import annotations
