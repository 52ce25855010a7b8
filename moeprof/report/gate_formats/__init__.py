"""The outputs of a gate: Markdown, JUnit, SARIF."""
