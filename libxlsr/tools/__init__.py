"""What is done with an image besides restoring it: verify, inspect and diff, extract, convert."""
