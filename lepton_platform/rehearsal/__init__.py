"""The loop on trial: drift, retraining, gate, canary and the way back, played with the real parts in a scratch workspace."""
