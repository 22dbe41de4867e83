"""Mechanics without a domain: arrays, tables in memory and on disk, threads and processes."""
