"""What the chat handlers share: the message, its words, and the way to a service and back."""
