"""Speed and memory, never in a test: `make bench`. Arms are interleaved in one run and compared as ratios."""
