"""Benchmarks: ``python -m tests.bench --help``. Not part of the tests; nothing here asserts a time.

Each compares what libxlsr does with the barest program that does the same, in turns within one
run, and prints medians. Ratios can be trusted on a busy machine, seconds can't.
"""
