"""The harness: drives the chat through impaired links and measures it."""
