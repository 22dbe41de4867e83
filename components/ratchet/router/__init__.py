"""The router: forwards chats to the model pool, records what was said, takes votes."""
