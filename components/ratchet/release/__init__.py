"""From an adapter that passed offline to the champion or back: gate, Git, ledger, reconciler."""
