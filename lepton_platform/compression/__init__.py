"""Export, quantise, choose; pruning and distillation have their place here."""
