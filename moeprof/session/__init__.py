"""An investigation: its log of predictions, trials and decisions, and what each step does."""
