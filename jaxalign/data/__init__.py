"""Text examples, and the token trees that they are packed into."""
