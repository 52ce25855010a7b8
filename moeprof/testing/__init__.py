"""The pytest plugin: the fixture ``moeprof`` captures the GPU work of a part of a test and asserts on it (docs/howto/pytest.md).

``plugin`` is all that pytest loads at its start; it imports torch, pandas and plotly only where a test captures or a
report is written.
"""
