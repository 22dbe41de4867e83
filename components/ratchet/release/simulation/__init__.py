"""An offline study of the gate's error rates, compared with other decision rules."""
