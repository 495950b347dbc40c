"""What hosts are like: facts, and the preflight that judges them."""
