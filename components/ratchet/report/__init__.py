"""One HTML file that tells what a run of the loop did, and why."""
