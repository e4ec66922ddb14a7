"""The claims, one topic a file."""
