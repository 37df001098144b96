"""The offline target: rebuilds the guest as files, with no Xen and no root.

``target.ImageTarget`` is the parent's side, ``worker`` the program in the helper's child; what they
leave is described in ``layout``.
"""

from __future__ import annotations
