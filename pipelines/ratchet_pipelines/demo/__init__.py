"""The demo: the real loop on one machine, with simulated users."""
