"""Benchmarks: each a module run by `make bench NAME=…`, beside what people would use instead."""
