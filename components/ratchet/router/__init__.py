"""The router: forwards chats to the model pool, records every answer, and takes votes."""
