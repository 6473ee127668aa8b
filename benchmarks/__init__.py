"""Benchmarks: one command each, printing ours and its peers side by side from one run."""
