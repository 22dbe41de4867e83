"""From landed events to joined triplets: each event counts once."""
