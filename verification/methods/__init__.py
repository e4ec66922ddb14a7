"""Ways of testing a statement, shared by the claims: each turns a question into evidence of one kind."""
