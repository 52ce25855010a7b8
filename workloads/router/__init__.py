"""One mixture-of-experts layer, from every expert on every token to one fused kernel."""
