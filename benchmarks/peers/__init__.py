"""The same model served as people serve one without a platform."""
