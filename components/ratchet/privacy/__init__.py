"""Privacy: personal data and secrets become typed placeholders before anything is built from what users wrote."""
