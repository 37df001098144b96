"""Fuzzing with atheris: ``python -m tests.fuzz [--seconds N] [TARGET...]``; see docs/testing.md.

A target is a module of ``targets``: line 1 is its invariant in words, ``check(data)`` asserts it of
any bytes, ``seeds()`` makes right inputs to start from. ``corpus`` holds the seeds and what the
fuzzer found worth keeping; test_corpus.py replays it in the ordinary test run, without atheris.
"""
