"""Domain-free building blocks: arrays, tables in memory and on disk, threads and processes."""
