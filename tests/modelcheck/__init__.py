"""A small model checker over the real code: every interleaving of what can happen, run one by one.

``explore`` is the search. A *world* is one run of the real code with everything that it depends on
under the search's control: its clock, the bytes that arrive, the other process, the caller.
"""
