"""The ranks of one program: matched collectives on one clock, who waits, who is late and why."""
