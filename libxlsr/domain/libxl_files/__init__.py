"""Files that are shared with libxl, each read and written as libxl does.

``userdata`` is a domain's configuration, for xl; ``domid_history`` the ids that were in use lately.
``locks`` are libxl's lock files, ``replaced_file`` replaces a file as a whole.
"""

from __future__ import annotations
