"""Plain versions of what is written for speed: what the fast ones must agree with."""
