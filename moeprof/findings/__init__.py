"""Why a trace is slow: the rules, and the models that they rest on."""
