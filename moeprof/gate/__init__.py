"""Rules on captures: the grammar, the numbers, the judgement, the gate, the history."""
