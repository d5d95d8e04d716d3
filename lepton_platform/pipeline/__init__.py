"""The graph, declared once: its stages, their order, running one, its version, the trace back."""
