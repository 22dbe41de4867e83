"""Units of time in seconds, and the bounds of a sane clock. Pure."""

HOUR_S = 3_600
DAY_S = 86_400
# Unix seconds from 2000-01-01 to 2100-01-01. Times beyond are broken clocks (mostly milliseconds taken for seconds):
# they have no day, and must not move the window in which feedback may still be joined.
FIRST_SANE_S = 946_684_800.0
LAST_SANE_S = 4_102_444_800.0
